"""A reward service whose host name does not resolve, or whose server is not a reward server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from editr1.config.loader import ConfigError
from editr1.config.serve import ClientConfig
from editr1.data.types import FailureCause, ScoreFailure
from editr1.serving.client import RewardClient
from editr1.serving.readiness import wait_ready

UNRESOLVED = "http://reward.invalid:8000"
MESSAGE = "the host name 'reward.invalid' cannot be resolved: "


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404, "no such page")

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def other_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_score_names_the_host_that_cannot_be_resolved(make_items) -> None:
    with RewardClient([UNRESOLVED], config=ClientConfig(deadline_seconds=0.5)) as client:
        (outcome,) = client.score(make_items(1))
    assert isinstance(outcome, ScoreFailure) and outcome.cause is FailureCause.UNREACHABLE
    assert MESSAGE in outcome.detail


def test_name_that_does_not_resolve_is_retried_until_the_time_limit() -> None:
    polls = 0

    def count() -> bool:
        nonlocal polls
        polls += 1
        return False

    with pytest.raises(TimeoutError, match=MESSAGE):
        wait_ready([UNRESOLVED], 2.0, should_stop=count, pause_s=0.1)
    assert polls > 1


def test_server_that_rejects_every_request_is_a_configuration_error(other_server: str) -> None:
    with pytest.raises(ConfigError, match=r"rejected every request for 0 s; last responses: .*: 404 "):
        wait_ready([other_server], 0.2, pause_s=0.1)
    with pytest.raises(TimeoutError, match=r"404 .*cannot be resolved"):
        wait_ready([other_server, UNRESOLVED], 0.2, pause_s=0.1)
