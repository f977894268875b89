"""Tell a webhook when a run changes state: CloudEvents over HTTP, retried, never in the way of the run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import RunStatus
from editr1_operator.metrics import NOTICES

log = logging.getLogger("editr1.operator")
WAITING = 1000
"""Notices that may wait; the newest are dropped when more do."""
TRIES = 6
TIMEOUT_SECONDS = 10.0


def cloud_event(meta: Mapping[str, Any], status: RunStatus, now: float) -> dict[str, Any]:
    """A CloudEvent 1.0 in JSON. A change that is told twice has the same id twice."""
    source = f"/namespaces/{meta['namespace']}/editruns/{meta['name']}"
    return {
        "specversion": "1.0",
        "id": f"{meta['uid']}/{meta.get('resourceVersion', '')}",
        "source": source,
        "type": f"dev.editr1.run.{status.state.lower()}",
        "time": format_timestamp(now),
        "datacontenttype": "application/json",
        "data": {
            "run": meta["name"],
            "namespace": meta["namespace"],
            "state": str(status.state),
            "stage": status.stage,
            "reason": str(status.reason or ""),
            "message": status.message,
        },
    }


class Notifier:
    """Sends from a thread of its own. Without an address it does nothing."""

    def __init__(self, url: str, token: str = "", pause: float = 1.0) -> None:
        self._url, self._token, self._pause = url, token, pause
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, daemon=True) if url else None
        if self._thread:
            self._thread.start()

    def tell(self, event: dict[str, Any]) -> None:
        """Put an event in the queue; returns at once."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            NOTICES.labels("dropped").inc()

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for ``seconds`` at most."""
        if self._thread is not None:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(seconds)

    def _work(self) -> None:
        headers = {"Content-Type": "application/cloudevents+json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        with httpx.Client(timeout=TIMEOUT_SECONDS, headers=headers, follow_redirects=False) as client:
            while (event := self._queue.get()) is not None:
                NOTICES.labels("sent" if self._send(client, event) else "failed").inc()

    def _send(self, client: httpx.Client, event: dict[str, Any]) -> bool:
        for number in range(TRIES):
            try:
                answer = client.post(self._url, json=event)
                if answer.is_success:
                    return True
                why = f"HTTP {answer.status_code}"
                if 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429):
                    break
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = str(error) or type(error).__name__
            time.sleep(self._pause * 2**number)
        log.warning("notice %s of %s was not taken: %s", event["type"], event["source"], why)
        return False
