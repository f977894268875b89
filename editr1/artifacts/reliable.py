"""Retry operations of an object store after temporary failures, and wait for the store during an outage.

Every store that :func:`editr1.artifacts.store.open_store` returns accesses its objects through this module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from editr1.artifacts.errors import (
    AccessDenied,
    AlreadyExists,
    ArtifactNotFound,
    StoreMisconfigured,
    StoreUnreachable,
)
from editr1.artifacts.objects import ObjectStore
from editr1.artifacts.outage import OutageTolerance
from editr1.durations import format_duration

T = TypeVar("T")

QUICK_DELAYS: Final = (0.2, 0.4, 0.8, 1.6)
"""Delays in seconds before the first retries of an operation, which are made even if no outage is tolerated."""
REFUSED_DELAYS: Final = (0.3, 1.0)
"""Delays in seconds before the retries of an operation that the store rejected. A proxy or a server that is starting
may reject a valid operation."""
REREAD_DELAYS: Final = (0.2, 0.5, 1.0, 1.5, 2.0)
"""Delays in seconds before the retries of a read whose result is damaged or missing."""
LONGEST_DELAY: Final = 10.0
_POLL_SECONDS: Final = 0.1

log = logging.getLogger("editr1.store")


def _go_on() -> None:
    return None


def read_again(read: Callable[[], T], *passing: type[Exception], delays: tuple[float, ...] = REREAD_DELAYS) -> T:
    """Return the result of ``read``, which is retried if it raises one of the exceptions ``passing``.

    A single wrong byte in a response, or an outdated cache, does not prove that an object is damaged or missing.
    After the last retry, the exception is raised.
    """
    for delay in delays:
        try:
            return read()
        except passing as error:
            log.warning("%s; reading again in %.1f s", error, delay)
            time.sleep(delay)
    return read()


class OutageWait:
    """Settings for operations while the store is unreachable.

    Args:
        seconds: maximum duration of an outage. With 0, an operation fails after a few quick retries.
        check_stop: called several times per second during a wait. It raises an exception to end the wait.
        report: called with messages that the store is unreachable, and for how long the process will still wait.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        *,
        check_stop: Callable[[], None] = _go_on,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._tolerance, self._check_stop = OutageTolerance(seconds), check_stop
        self._report = report or (lambda text: log.warning("%s", text))

    def call(self, action: Callable[[], T]) -> T:
        """Return the result of ``action``, which is retried while it raises StoreUnreachable.

        After a stop was requested, a new operation is only retried a few times.

        Raises:
            StoreUnreachable: the outage lasted longer than the limit.
        """
        stopping = self._stop_is_requested()
        delay, attempt, refused = QUICK_DELAYS[0], 0, 0
        while True:
            try:
                result = action()
            except (AccessDenied, StoreMisconfigured):
                if refused >= len(REFUSED_DELAYS):
                    raise
                delay = REFUSED_DELAYS[refused]
                refused += 1
            except StoreUnreachable as error:
                if attempt < len(QUICK_DELAYS):
                    delay = QUICK_DELAYS[attempt]
                elif stopping:
                    raise
                else:
                    self._record(error)
                    delay = min(max(2 * delay, QUICK_DELAYS[0], _POLL_SECONDS), LONGEST_DELAY)
                attempt += 1
            else:
                if attempt:
                    self._tolerance.answered()
                return result
            self._sleep(delay, check=not stopping)

    def _record(self, error: StoreUnreachable) -> None:
        self._tolerance.record(error)
        if self._tolerance.notice_is_due():
            left = format_duration(self._tolerance.remaining)
            self._report(f"{error}; waiting for the store for up to {left}")

    def _stop_is_requested(self) -> bool:
        try:
            self._check_stop()
        except Exception:
            return True
        return False

    def _sleep(self, seconds: float, *, check: bool) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if check:
                self._check_stop()
            time.sleep(min(left, _POLL_SECONDS))


class ReliableObjects:
    """``ObjectStore`` that retries the operations of another ``ObjectStore``, as configured by ``wait``."""

    def __init__(self, objects: ObjectStore, wait: OutageWait | None = None) -> None:
        self.inner, self.url = objects, objects.url
        self._wait = wait or OutageWait()

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. With ``once``, raise AlreadyExists if the key exists with different content.

        If the response to a write is lost, the write is retried, although the first request may have created the
        object. Therefore, an existing object with the same content counts as written.
        """
        if not once:
            self._wait.call(lambda: self.inner.put_bytes(key, data))
            return
        for delay in (*QUICK_DELAYS, None):
            try:
                self._wait.call(lambda: self.inner.put_bytes(key, data, once=True))
                return
            except AlreadyExists:
                try:
                    if self.get_bytes(key) == data:
                        return
                    raise
                except ArtifactNotFound:  # the write was refused, although nobody wrote
                    if delay is None:
                        raise StoreUnreachable(
                            f"{self.url}: cannot write {key}: the server reports that this object exists, but "
                            "does not return it; try again"
                        ) from None
            time.sleep(delay)

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Write an object from a file."""
        self._wait.call(lambda: self.inner.put_file(key, path, size, sha256))

    def get_bytes(self, key: str) -> bytes:
        """Return the content of an object."""
        return self._wait.call(lambda: self.inner.get_bytes(key))

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the content of an object in chunks, starting at byte ``offset``.

        The operation is retried until the first chunk has been received. If the connection fails later,
        StoreUnreachable is raised, and the caller can resume with another call.
        """

        def begin() -> tuple[bytes, Iterator[bytes]]:
            chunks = self.inner.stream(key, offset)
            return next(chunks, b""), chunks

        first, rest = self._wait.call(begin)
        if first:
            yield first
            yield from rest

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the object does not exist."""
        return self._wait.call(lambda: self.inner.size(key))

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        self._wait.call(lambda: self.inner.delete(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""
        return iter(self._wait.call(lambda: list(self.inner.keys(prefix))))
