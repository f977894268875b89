"""Tolerate outages of a service: decide how long failures are retried, and when the user is notified."""

from __future__ import annotations

import threading
import time

TOLERATED_SECONDS = 1800.0
"""Default limit on the duration of an outage, in seconds."""
_FIRST_NOTICE_INTERVAL = 30.0
_LONGEST_NOTICE_INTERVAL = 300.0


class OutageTolerance:
    """Limit on the duration of an outage of a service, in ``seconds``.

    Any response from the service ends an outage. Thread-safe.
    """

    def __init__(self, seconds: float = TOLERATED_SECONDS) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._since: float | None = None
        self._next_notice, self._interval = 0.0, _FIRST_NOTICE_INTERVAL

    def answered(self) -> None:
        """Record that the service responded to a request."""
        with self._lock:
            self._since = None

    def record(self, error: Exception) -> str:
        """Record that a request failed with ``error``, and return a message for the user.

        Raises:
            Exception: ``error``, if the outage has lasted longer than the limit.
        """
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since, self._next_notice, self._interval = now, now, _FIRST_NOTICE_INTERVAL
            if now - self._since >= self._seconds:
                raise error
        return f"{error}; retrying"

    @property
    def remaining(self) -> float:
        """Time in seconds for which the current outage is still tolerated; the whole limit if there is no outage."""
        with self._lock:
            passed = 0.0 if self._since is None else time.monotonic() - self._since
            return max(0.0, self._seconds - passed)

    def notice_is_due(self) -> bool:
        """Return True if the user should be notified about the outage: at its start, then at increasing intervals of up to 5 minutes."""
        with self._lock:
            now = time.monotonic()
            if self._since is None or now < self._next_notice:
                return False
            self._next_notice = now + self._interval
            self._interval = min(2 * self._interval, _LONGEST_NOTICE_INTERVAL)
            return True
