"""Tolerance of API outages for commands that only observe a run, which continues while the API server is down."""

from __future__ import annotations

import time

from editr1.launch.kubernetes.errors import ClusterUnreachable

TOLERATED_SECONDS = 1800.0


class OutageTolerance:
    """Tolerates API outages of up to ``seconds``. Any response of the server ends the outage."""

    def __init__(self, seconds: float = TOLERATED_SECONDS) -> None:
        self._seconds, self._since = seconds, 0.0

    def answered(self) -> None:
        """Record that the server responded."""
        self._since = 0.0

    def record(self, error: ClusterUnreachable) -> str:
        """Record a request without a response and return a message for the user.

        Raises:
            ClusterUnreachable: ``error``, if the outage lasts longer than tolerated.
        """
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error
        return f"{error}; retrying"
