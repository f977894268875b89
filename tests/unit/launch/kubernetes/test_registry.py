"""Lookup of digests in a registry that, like public registries, requires an anonymous token."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from editr1.launch.kubernetes.registry import ImageName, image_digest, parse_image

DIGEST = "sha256:" + "d" * 64


class Registry(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") != "Bearer anonymous":
            self.send_response(401)
            realm = f"http://{self.headers['Host']}/token"
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="r",scope="repository:team/sft:pull"')
        elif self.path == "/v2/team/sft/manifests/1.0":
            self.send_response(200)
            self.send_header("Docker-Content-Digest", DIGEST)
        elif self.path == "/v2/team/sft/manifests/odd":
            self.send_response(200)
            self.send_header("Docker-Content-Digest", "md5:1")
        else:
            self.send_response(404)
        self.end_headers()

    def do_GET(self) -> None:
        data = b'{"token": "anonymous"}' if "service=r" in self.path else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("tag", "digest"), [("1.0", DIGEST), ("2.0", None), ("odd", None)])
def test_tag_resolves_to_the_digest_in_the_registry(registry: str, tag: str, digest: str | None) -> None:
    assert image_digest(f"{registry}/team/sft", tag, scheme="http") == digest


@pytest.mark.parametrize("page", [b"<html>log in</html>", b"[]"])
def test_login_page_instead_of_a_token_gives_no_digest(
    registry: str, page: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in(self: Registry) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    monkeypatch.setattr(Registry, "do_GET", log_in)
    assert image_digest(f"{registry}/team/sft", "1.0", scheme="http") is None


def test_unreachable_registry_gives_no_digest() -> None:
    assert image_digest("127.0.0.1:1/team/sft", "1.0", scheme="http") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("editr1/sft", ImageName("registry-1.docker.io", "editr1/sft")),
        ("docker.io/editr1/sft", ImageName("registry-1.docker.io", "editr1/sft")),
        ("python", ImageName("registry-1.docker.io", "library/python")),
        ("registry.example.com:5000/team/sft", ImageName("registry.example.com:5000", "team/sft")),
    ],
)
def test_image_names_are_parsed_as_by_container_engines(text: str, name: ImageName) -> None:
    assert parse_image(text) == name
