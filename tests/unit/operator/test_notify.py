"""Webhook notifications, which never delay the operator."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus
from editr1_operator import notify
from editr1_operator.notify import Notifier, cloud_event

META = {"name": "quick", "namespace": "lab", "uid": "u-1", "resourceVersion": "7"}


class Webhook:
    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.answers: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.received.append((dict(self.headers), body))
                self.send_response(hook.answers.pop(0) if hook.answers else 202)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.server.shutdown()


def event(state: RunState = RunState.DONE) -> dict[str, Any]:
    return cloud_event(META, RunStatus(state=state, reason=Reason.DONE, message="m"), 0.0)


def test_change_is_sent_as_a_cloud_event(hook: Webhook) -> None:
    notifier = Notifier(hook.url, token="secret-word")
    notifier.notify(event())
    notifier.close()
    ((headers, body),) = hook.received
    assert (
        headers["Content-Type"] == "application/cloudevents+json" and headers["Authorization"] == "Bearer secret-word"
    )
    assert body["specversion"] == "1.0" and body["type"] == "dev.editr1.run.done"
    assert body["source"] == "/namespaces/lab/editruns/quick" and body["id"] == "u-1/7"
    assert body["data"]["state"] == "Done" and body["time"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(("answers", "posts"), [([503, 429, 202], 3), ([404], 1), ([500] * 6, 6)])
def test_only_retryable_responses_are_retried(hook: Webhook, answers: list[int], posts: int) -> None:
    hook.answers = list(answers)
    notifier = Notifier(hook.url, backoff_s=0.01)
    notifier.notify(event())
    notifier.close()
    assert len(hook.received) == posts


def test_unreachable_webhook_does_not_delay_the_caller() -> None:
    notifier = Notifier("http://127.0.0.1:9/hook", backoff_s=5)
    began = time.monotonic()
    for _ in range(2000):
        notifier.notify(event(RunState.RUNNING))
    notifier.close(0.1)
    assert time.monotonic() - began < 2


def test_notifier_without_url_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify.httpx, "Client", lambda **_: pytest.fail("a client was opened"))
    threads = threading.active_count()
    notifier = Notifier("")
    notifier.notify(event())
    assert not notifier.enabled and notifier._queue.empty() and threading.active_count() == threads
    notifier.close()
