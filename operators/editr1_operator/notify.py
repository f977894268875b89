"""Notify a webhook with a CloudEvent when the state of a run changes.

Notifications are sent and retried in a background thread, so a slow or unreachable webhook never delays a run.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_exponential

from editr1.config.store import options_from_environment
from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import RunStatus
from editr1_operator.metrics import NOTICES

log = logging.getLogger("editr1.operator")
QUEUE_LENGTH = 1000
"""Maximum number of queued notifications. While the queue is full, new notifications are dropped."""
ATTEMPTS = 6
TIMEOUT_SECONDS = 10.0
_RETRYABLE_CLIENT_ERRORS = (408, 425, 429)


def cloud_event(meta: Mapping[str, Any], status: RunStatus, now: float) -> dict[str, Any]:
    """Return the change of a run's state as a CloudEvent 1.0. The same change always has the same ID."""
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


@dataclass(frozen=True)
class _Failure:
    reason: str
    retryable: bool = True


def _authorities() -> ssl.SSLContext:
    """Return a context that trusts the public certificate authorities and those of the artifact store."""
    context = httpx.create_ssl_context()
    if bundle := options_from_environment().get("ca_bundle"):
        context.load_verify_locations(bundle)
    return context


class Notifier:
    """Background thread that sends notifications to a webhook. Without the webhook's URL, nothing is sent."""

    def __init__(self, url: str, token: str = "", backoff_s: float = 1.0) -> None:
        """Start the thread if a URL is given.

        Args:
            url: Address of the webhook. Empty disables notifications.
            token: Bearer token for the webhook. If it is empty, no token is sent.
            backoff_s: Seconds between the first and the second attempt. The delay doubles with every further attempt.
        """
        self._url, self._token, self._backoff_s = url, token, backoff_s
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._work, daemon=True) if url else None
        if self._thread:
            self._thread.start()

    @property
    def enabled(self) -> bool:
        """Whether a webhook is configured."""
        return self._thread is not None

    def notify(self, event: dict[str, Any]) -> None:
        """Queue an event to be sent, and return immediately."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            NOTICES.labels("dropped").inc()

    def close(self, seconds: float = 5.0) -> None:
        """Send the queued events and stop the thread. Waits for at most ``seconds``."""
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
        with httpx.Client(
            timeout=TIMEOUT_SECONDS, headers=headers, follow_redirects=False, verify=_authorities()
        ) as client:
            while (event := self._queue.get()) is not None:
                NOTICES.labels("sent" if self._send(client, event) else "failed").inc()

    def _send(self, client: httpx.Client, event: dict[str, Any]) -> bool:
        retrying = Retrying(
            retry=retry_if_result(lambda failure: failure is not None and failure.retryable),
            wait=wait_exponential(multiplier=self._backoff_s),
            stop=stop_after_attempt(ATTEMPTS),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        failure: _Failure | None = retrying(self._post, client, event)
        if failure is not None:
            log.warning(
                "cannot send notification %s of %s to the webhook: %s", event["type"], event["source"], failure.reason
            )
        return failure is None

    def _post(self, client: httpx.Client, event: dict[str, Any]) -> _Failure | None:
        try:
            answer = client.post(self._url, json=event)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Failure(str(error) or type(error).__name__)
        if answer.is_success:
            return None
        rejected = answer.is_client_error and answer.status_code not in _RETRYABLE_CLIENT_ERRORS
        return _Failure(f"HTTP {answer.status_code}", retryable=not rejected)
