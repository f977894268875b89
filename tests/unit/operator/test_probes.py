"""The endpoints of the operator's liveness and readiness probes."""

import socket
import time

import httpx
import pytest

from editr1_operator import probes as module
from editr1_operator.probes import Probes


def test_waiting_operator_is_alive_and_not_ready() -> None:
    probes = Probes()
    assert (probes.answer("/healthz")[0], probes.answer("/readyz")[0]) == (200, 503)
    probes.beat()
    assert (probes.answer("/healthz")[0], probes.answer("/readyz")[0]) == (200, 200)
    assert probes.answer("/other")[0] == 404


def test_operator_whose_event_loop_is_blocked_is_neither_alive_nor_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = Probes()
    probes.beat()
    monkeypatch.setattr(module, "time", type("Later", (), {"monotonic": staticmethod(lambda: time.monotonic() + 61)}))
    assert (probes.answer("/healthz")[0], probes.answer("/readyz")[0]) == (500, 503)


def test_probes_are_answered_on_ipv4_and_ipv6() -> None:
    server = Probes().serve(0)
    try:
        port = server.server_address[1]
        hosts = ["127.0.0.1", "[::1]"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
        for host in hosts:
            assert httpx.get(f"http://{host}:{port}/healthz", trust_env=False).text == "alive\n"
            assert httpx.get(f"http://{host}:{port}/readyz", trust_env=False).status_code == 503
    finally:
        server.shutdown()
        server.server_close()
