"""Tolerate outages of the API server in commands that observe a run.

The run continues during an outage, so the command retries its requests instead of failing.
"""

from __future__ import annotations

import time

from editr1.launch.kubernetes.errors import ClusterUnreachable

TOLERATED_SECONDS = 1800.0


class OutageTolerance:
    """Limit of ``seconds`` on the duration of an outage of the API server. Any response of the server ends an outage."""

    def __init__(self, seconds: float = TOLERATED_SECONDS) -> None:
        self._seconds, self._since = seconds, 0.0

    def answered(self) -> None:
        """Record that the API server responded to a request."""
        self._since = 0.0

    def record(self, error: ClusterUnreachable) -> str:
        """Record that a request failed with ``error``, and return a message for the user.

        Raises:
            ClusterUnreachable: ``error``, if the outage has lasted longer than the limit.
        """
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error
        return f"{error}; retrying"
