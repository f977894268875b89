"""Credentials of a pod's identity, and keys that the server accepts no longer."""

from __future__ import annotations

import json
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
        self.reject = ""
        """Error code of all S3 responses; empty if requests are accepted."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        login = self.headers.get("Authorization", "")
        if self.path == "/keys":
            self.server.tokens.append(login)
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
            keys = {"AccessKeyId": "AGENTKEY", "SecretAccessKey": "s", "Token": "t", "Expiration": end}
            self._send(200, json.dumps(keys).encode())
            return
        self.server.signatures.append(login)
        if self.server.reject:
            self._send(403, f"<Error><Code>{self.server.reject}</Code><Message>no</Message></Error>".encode())
        else:
            self._send(200, LISTING)

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
    "uri", ["http://10.0.0.1/keys", "http://metadata.example.com/", "file:///etc/passwd", "http://[::1/", "https://"]
)
def test_token_is_not_sent_to_other_machines(server: Server, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)
    with pytest.raises(ConfigError, match="must be an https address, or an http address of this node"):
        store(server)


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
