"""One at a time in a folder, over processes."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from editr1.config.loader import ConfigError

POLL_SECONDS = 0.2


def _wait() -> None:
    """Nothing is asked of a caller that waits."""


@contextmanager
def locked(file: Path, says: str, *, wait: float = 0.0, meanwhile: Callable[[], None] = _wait) -> Iterator[int]:
    """Hold the lock of ``file``; yields its descriptor. A process that is given the descriptor holds the lock too.

    ``meanwhile`` is called again and again while another holds it; what it raises ends the wait.

    Raises:
        ConfigError: another holds it and went on for ``wait`` seconds; in the words ``says``.
    """
    with file.open("w") as held:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise ConfigError(f"{file.parent}: {says}") from None
            meanwhile()
            time.sleep(POLL_SECONDS)
        yield held.fileno()
