"""Reward servers on other machines are reached through the proxy in the environment: scores, readiness and the identity."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from editr1.config.serve import ClientConfig
from editr1.serving.client import RewardClient
from editr1.serving.identity import ask_identity
from editr1.serving.readiness import wait_ready

from .outside_server import MODEL, OutsideServer, honest

OUTSIDE = "http://reward.example:8000"


@pytest.fixture
def proxy(monkeypatch) -> Iterator[list[str]]:
    """A proxy in the environment that answers as a reward service itself. The value has the URLs that were requested."""
    asked: list[str] = []
    service = OutsideServer(honest, verdicts=True, info=None)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return None

        def answer(self, body: object) -> None:
            asked.append(self.path)
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer({"model": MODEL})

        def do_POST(self) -> None:
            self.answer(service.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()
    service.close()


def fail_to_resolve(host: str, port: int) -> list[str]:
    raise OSError(f"{host} is known to the proxy only")


def test_outside_reward_server_is_reached_through_the_proxy(proxy, make_items) -> None:
    assert wait_ready([OUTSIDE], 0.0)
    assert ask_identity([OUTSIDE], 0.0).model == MODEL
    with RewardClient([OUTSIDE], config=ClientConfig(deadline_seconds=10), resolve=fail_to_resolve) as client:
        assert all(outcome.ok for outcome in client.score(make_items(2)))
    assert proxy == [f"{OUTSIDE}/readyz", f"{OUTSIDE}/v1/info", f"{OUTSIDE}/v1/score"]


def test_excluded_and_local_reward_servers_are_reached_directly(proxy, monkeypatch, make_items) -> None:
    service = OutsideServer(honest, verdicts=True, info=None)
    port = service.url.rpartition(":")[2]
    monkeypatch.setenv("no_proxy", "reward.example")
    url = f"http://reward.example:{port}"
    with (
        RewardClient([service.url]) as local,
        RewardClient([url], resolve=lambda host, port: ["127.0.0.1"]) as excluded,
    ):
        assert all(outcome.ok for client in (local, excluded) for outcome in client.score(make_items(1)))
    service.close()
    assert proxy == []
