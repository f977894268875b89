"""Buffer for the last log lines of each rank. A pod copies them to the artifact store."""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque

TAIL_LINES = 400
_RANK = re.compile(r"\[\w*?(\d+)\]:")


class LogTail:
    """Thread-safe buffer for the last log lines of each rank."""

    def __init__(self, lines: int = TAIL_LINES) -> None:
        self._lines: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=lines))
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Add a line to the buffer of its rank. A line without a rank prefix belongs to the launcher (torchrun)."""
        rank = _RANK.match(line)
        with self._lock:
            self._lines[int(rank[1]) if rank else -1].append(line)

    def text(self) -> list[str]:
        """Return all buffered lines: first the lines of the launcher, then the lines of each rank in ascending order."""
        with self._lock:
            return [line for rank in sorted(self._lines) for line in self._lines[rank]]

    def last_error(self) -> str:
        """Return the last line of :meth:`text` that reports an error, or the last line if there is no error."""
        lines = [line for line in self.text() if line.strip()]
        errors = [line for line in lines if " ERROR " in line or "Error" in line]
        return (errors or lines or [""])[-1].strip()[:500]
