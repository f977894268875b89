"""The S3 client and the proxy of the environment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from editr1.artifacts.s3 import S3Objects
from editr1.config.store import StoreConfig


class Proxy(ThreadingHTTPServer):
    """A server that answers every request with the bytes b"content", and records the request lines and logins."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str | None]] = []
        self.url = f"http://user:pass%40word@127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Proxy-Authorization"]))
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Proxy()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def objects(endpoint: str) -> S3Objects:
    return S3Objects(StoreConfig(url="s3://bucket", endpoint=endpoint, region="us-east-1"))


def test_outside_server_is_reached_through_the_proxy(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert objects("http://s3.example:9000").get_bytes("name") == b"content"
    assert server.seen == [("http://s3.example:9000/bucket/name", "Basic dXNlcjpwYXNzQHdvcmQ=")]


def test_server_on_this_machine_is_reached_directly(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert objects(f"http://127.0.0.1:{server.server_address[1]}").get_bytes("name") == b"content"
    assert server.seen == [("/bucket/name", None)]
