"""Locks between processes that work in the same folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from editr1.config.loader import ConfigError

POLL_SECONDS = 0.2


def _do_nothing() -> None:
    pass


@contextmanager
def lock(file: Path, reason: str, *, wait: float = 0.0, on_wait: Callable[[], None] = _do_nothing) -> Iterator[None]:
    """Hold the lock of ``file``.

    Args:
        file: the lock file; it is created if necessary.
        reason: why the lock may be taken, for the error message.
        wait: seconds to wait while another process holds it.
        on_wait: called before each attempt after the first; an exception it raises ends the wait.

    Raises:
        ConfigError: another process still holds the lock after ``wait`` seconds.
    """
    held = FileLock(file)

    def acquire() -> bool:
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        return True

    _acquire(acquire, file, reason, wait, on_wait)
    try:
        yield
    finally:
        held.release()


@contextmanager
def inherited_lock(
    file: Path, reason: str, *, wait: float = 0.0, on_wait: Callable[[], None] = _do_nothing
) -> Iterator[int]:
    """Hold the lock of ``file`` and yield its descriptor, which stage processes inherit. Arguments as for :func:`lock`.

    The lock belongs to the open file, so it stays held until the last stage process has ended, even if this process is
    killed. filelock cannot do that: it neither exposes the descriptor nor leaves the lock to a child.
    """
    with file.open("w") as opened:

        def acquire() -> bool:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

        _acquire(acquire, file, reason, wait, on_wait)
        yield opened.fileno()


def _acquire(acquire: Callable[[], bool], file: Path, reason: str, wait: float, on_wait: Callable[[], None]) -> None:
    deadline = time.monotonic() + wait
    while not acquire():
        if time.monotonic() >= deadline:
            raise ConfigError(f"{file.parent}: {reason}")
        on_wait()
        time.sleep(POLL_SECONDS)
