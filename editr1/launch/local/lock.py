"""File locks that keep several processes from using the same folder at the same time."""

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
    """Context manager that holds an exclusive lock on ``file``.

    Args:
        file: the lock file; it is created if necessary.
        reason: why another process may hold the lock, for the error message.
        wait: maximum time in seconds to wait for the lock.
        on_wait: called repeatedly while the lock is held by another process. If it raises an exception, the wait ends.

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
    """Context manager that holds an exclusive lock on ``file`` and yields the file descriptor of the lock.

    Stage processes inherit the descriptor. Therefore, the lock is held until the last stage process has exited, even if this
    process is killed. The filelock package does not support this. The arguments are the same as those of :func:`lock`.
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
            raise ConfigError(f"{file.parent}: {reason}; wait until that process has exited, or stop it")
        on_wait()
        time.sleep(POLL_SECONDS)
