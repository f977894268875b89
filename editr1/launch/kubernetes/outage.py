"""How long a silent API server is waited for by who only looks: what runs in the cluster goes on meanwhile."""

from __future__ import annotations

import time

from editr1.launch.kubernetes.errors import ClusterUnreachable

SILENT_SECONDS = 1800.0


class OutageTolerance:
    """Bears errors that may pass, until none of the looks of ``seconds`` was answered."""

    def __init__(self, seconds: float = SILENT_SECONDS) -> None:
        self._seconds, self._since = seconds, 0.0

    def answered(self) -> None:
        """The server is there."""
        self._since = 0.0

    def record(self, error: ClusterUnreachable) -> str:
        """What to tell while the server is waited for. Raises ``error`` once that took too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error
        return f"{error}; asked again"
