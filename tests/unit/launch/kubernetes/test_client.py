"""Requests of the Kubernetes client to an HTTP server, and the exceptions for its error responses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused


@dataclass
class FakeServer:
    """An API server that returns the same response to every request and records the requests."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    requests: list[tuple[str, str, str, Any]] = field(default_factory=list)
    """Method, path with query, content type and body of each request."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = json.loads(data) if data else None
            fake.requests.append((self.command, self.path, self.headers.get("Content-Type") or "", sent))
            self.send_response(fake.status)
            self.send_header("Content-Length", str(len(fake.body)))
            self.end_headers()
            self.wfile.write(fake.body)

        do_GET = do_POST = do_PATCH = do_DELETE = reply

        def log_message(self, *_: Any) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    fake.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield fake
    http.shutdown()
    http.server_close()


def make_client(folder: Path, url: str, **options: Any) -> KubernetesClient:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return KubernetesClient(ClusterConfig(kubeconfig=folder / "kubeconfig"), **options)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (403, b'{"message": "pods is forbidden"}', RequestRefused, "pods is forbidden"),
        (409, b"conflict", RequestRefused, "409 Conflict"),
        (429, b"{}", ClusterUnreachable, "429"),
        (503, b'{"message": "etcd is down"}', ClusterUnreachable, "etcd is down"),
        (200, b"<html>log in</html>", ClusterUnreachable, "is not a JSON object"),
    ],
)
def test_error_responses_raise_typed_exceptions(
    server: FakeServer, tmp_path: Path, status: int, body: bytes, error: type[Exception], message: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(error, match=message) as raised:
        make_client(tmp_path, server.url, retries=0).get("Pod", "lab", "a")
    if isinstance(raised.value, RequestRefused):
        assert raised.value.status == status


def test_missing_object_is_not_an_error(server: FakeServer, tmp_path: Path) -> None:
    server.status = 404
    client = make_client(tmp_path, server.url)
    assert client.get("Pod", "lab", "a") is None
    assert client.find("PyTorchJob", "lab") == []
    assert client.patch("Pod", "lab", "a", {}) is None
    assert not client.delete("Pod", "lab", "a")
    assert client.pod_log("lab", "a") == ""


def test_delete_with_unmet_precondition_returns_false(server: FakeServer, tmp_path: Path) -> None:
    client = make_client(tmp_path, server.url)
    assert client.delete("Pod", "lab", "a", grace=0, uid="u1")
    _, path, _, body = server.requests[-1]
    assert path == "/api/v1/namespaces/lab/pods/a"
    assert body == {"propagationPolicy": "Background", "preconditions": {"uid": "u1"}, "gracePeriodSeconds": 0}
    server.status = 409
    assert not client.delete("Pod", "lab", "a", uid="u1")


def test_apply_sends_server_side_apply_patches(server: FakeServer, tmp_path: Path) -> None:
    counted: list[tuple[str, str]] = []
    client = make_client(tmp_path, server.url, manager="m", on_request=lambda *call: counted.append(call))
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    client.apply("lab", item)
    client.apply("lab", item, "other", force=False, dry_run=True)
    path = "/apis/apps/v1/namespaces/lab/deployments/d"
    assert [request[1] for request in server.requests] == [
        f"{path}?fieldManager=m&force=true",
        f"{path}?fieldManager=other&dryRun=All",
    ]
    assert {request[2] for request in server.requests} == {"application/apply-patch+yaml"}
    assert counted == [("PATCH", "deployments")] * 2


def test_followed_log_is_yielded_line_by_line(server: FakeServer, tmp_path: Path) -> None:
    server.body = b"2026-01-01T00:00:00Z one\n2026-01-01T00:00:01Z two\n"
    lines = list(make_client(tmp_path, server.url).follow_log("lab", "a", container="pytorch", since=0.0))
    assert [line.split()[-1] for line in lines] == ["one", "two"]
    assert "follow=true" in server.requests[0][1] and "container=pytorch" in server.requests[0][1]


def test_error_for_unsupported_kind_lists_supported_kinds(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="kind 'Ingress' is not supported; supported kinds: ConfigMap"):
        make_client(tmp_path, "http://127.0.0.1:1").get("Ingress", "lab", "a")
