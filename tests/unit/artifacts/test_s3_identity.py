"""Credentials of a pod's identity, and keys that the server accepts no longer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from editr1.artifacts.errors import AccessDenied, KeysNoLongerAccepted, StoreUnreachable
from editr1.artifacts.s3 import S3Objects
from editr1.artifacts.s3_errors import ACCEPTED_VARIABLE
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import is_retryable

LISTING = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>'


class Server(ThreadingHTTPServer):
    """An S3 server with an empty bucket, and the agent that gives keys to a pod."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.tokens: list[str] = []
        self.signatures: list[str] = []
        self.tunnels: list[str] = []
        self.lifetime_s, self.agent_status = 3600, 200
        self.reject = ""
        """Error code of all S3 responses; empty if requests are accepted."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        login = self.headers.get("Authorization", "")
        if self.path == "/keys":
            self.server.tokens.append(login)
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.server.lifetime_s))
            keys = {"AccessKeyId": "AGENTKEY", "SecretAccessKey": "s", "Token": "t", "Expiration": end}
            self._send(self.server.agent_status, json.dumps(keys).encode())
            return
        self.server.signatures.append(login)
        if self.server.reject:
            self._send(403, f"<Error><Code>{self.server.reject}</Code><Message>no</Message></Error>".encode())
        else:
            self._send(200, LISTING)

    def do_CONNECT(self) -> None:
        self.server.tunnels.append(self.path)
        self._send(502, b"")

    def do_HEAD(self) -> None:
        self._send(403 if self.server.reject else 404, b"")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in (
        "EDITR1_S3_ACCESS_KEY",
        "EDITR1_S3_SECRET_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        ACCEPTED_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def store(server: Server) -> S3Objects:
    return S3Objects(StoreConfig(url="s3://bucket/p", endpoint=server.url, region="us-east-1"))


def test_keys_come_from_the_agent_in_the_full_uri(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret-token")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    assert list(store(server).keys("")) == []
    assert server.tokens == ["secret-token"]
    assert all("Credential=AGENTKEY/" in signature for signature in server.signatures) and server.signatures


def test_agent_that_does_not_answer_is_a_temporary_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/keys")
    with pytest.raises(StoreUnreachable, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        store(server)


@pytest.mark.parametrize(
    "uri",
    [
        "http://10.0.0.1/keys",
        "http://metadata.example.com/",
        "file:///etc/passwd",
        "http://[::1/",
        "https://",
        r"http://evil.example\@127.0.0.1/keys",
        "http://127.0.0.1@evil.example/keys",
    ],
)
def test_token_is_not_sent_to_other_machines(server: Server, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
    with pytest.raises(ConfigError, match="must be an https address, or an http address of this node"):
        store(server)


@pytest.fixture
def agent(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file with the token of an identity that the server's agent accepts."""
    token = tmp_path / "token"
    token.write_text("one")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    return token


def test_renewed_keys_are_requested_with_the_new_token(server: Server, agent: Path) -> None:
    server.lifetime_s = 0
    objects = store(server)
    agent.write_text("two")
    list(objects.keys(""))
    assert server.tokens[0] == "one" and server.tokens[-1] == "two"


def test_identity_that_was_accepted_before_is_a_temporary_error(server: Server, agent: Path) -> None:
    server.lifetime_s = 0
    objects = store(server)
    server.agent_status = 403
    with pytest.raises(StoreUnreachable, match="no credentials from the identity in AWS_CONTAINER"):
        list(objects.keys(""))
    with pytest.raises(AccessDenied, match="status code 403"):
        store(server)


@pytest.mark.usefixtures("agent")
def test_agent_that_limits_requests_is_a_temporary_error(server: Server) -> None:
    server.agent_status = 429
    with pytest.raises(StoreUnreachable):
        store(server)


def test_token_is_not_shown(server: Server, agent: Path) -> None:
    agent.write_text("secret\n")
    with pytest.raises(AccessDenied, match="the token contains a line break") as caught:
        store(server)
    assert "secret" not in str(caught.value)


def test_silent_agent_is_a_temporary_error(server: Server, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.s3_identity._READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{silent.getsockname()[1]}/keys")
        with pytest.raises(StoreUnreachable, match="timed out"):
            store(server)


def test_token_service_of_aws_is_reached_through_the_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jwt").write_text("jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", server.url)
    with pytest.raises(StoreUnreachable):
        store(server)
    assert set(server.tunnels) == {"sts.eu-central-1.amazonaws.com:443"}


@pytest.fixture
def keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", "b")


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "ExpiredToken", "SignatureDoesNotMatch"])
@pytest.mark.usefixtures("keys")
def test_keys_that_were_accepted_before_are_a_temporary_error(server: Server, code: str) -> None:
    objects = store(server)
    assert list(objects.keys("")) == []
    server.reject = code
    for access in (lambda: list(objects.keys("")), lambda: objects.size("x")):
        with pytest.raises(
            KeysNoLongerAccepted, match=rf"\({code}\), but the same credentials were accepted before"
        ) as caught:
            access()
        assert is_retryable(caught.value.exit_code)


@pytest.mark.usefixtures("keys")
def test_keys_that_the_launcher_has_used_are_a_temporary_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCEPTED_VARIABLE, "1")
    server.reject = "InvalidAccessKeyId"
    with pytest.raises(KeysNoLongerAccepted):
        list(store(server).keys(""))


@pytest.mark.usefixtures("keys")
def test_keys_that_were_never_accepted_and_missing_permissions_are_permanent_errors(server: Server) -> None:
    server.reject = "InvalidAccessKeyId"
    objects = store(server)
    with pytest.raises(AccessDenied) as caught:
        list(objects.keys(""))
    assert not is_retryable(caught.value.exit_code)
    server.reject = ""
    list(objects.keys(""))
    server.reject = "AccessDenied"
    with pytest.raises(AccessDenied) as caught:
        objects.size("x")
    assert not is_retryable(caught.value.exit_code)
