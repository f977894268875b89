"""The last log lines of each rank of a stage."""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque

TAIL_LINES = 400
_RANK = re.compile(r"\[\w*?(\d+)\]:")


class LogTail:
    """Buffer for the last lines of each rank. Thread-safe."""

    def __init__(self, lines: int = TAIL_LINES) -> None:
        self._lines: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=lines))
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Add a line. Lines without a rank prefix belong to the launcher."""
        rank = _RANK.match(line)
        with self._lock:
            self._lines[int(rank[1]) if rank else -1].append(line)

    def text(self) -> list[str]:
        """Return the lines of the launcher, followed by those of each rank in order."""
        with self._lock:
            return [line for rank in sorted(self._lines) for line in self._lines[rank]]

    def last_error(self) -> str:
        """Return the newest line with an error, or the newest line if there is none."""
        lines = [line for line in self.text() if line.strip()]
        errors = [line for line in lines if " ERROR " in line or "Error" in line]
        return (errors or lines or [""])[-1].strip()[:500]
