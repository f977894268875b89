"""The operator's work queue, which determines when each run is reconciled.

A run is reconciled after each change of the run or its objects. It is also reconciled at the time returned by its
last reconciliation or, if that reconciliation failed, after a backoff.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from editr1_operator.cache import Key
from editr1_operator.metrics import ERRORS, REACTION_SECONDS, RECONCILE_SECONDS

log = logging.getLogger("editr1.operator")
MAX_BACKOFF_SECONDS = 60.0
MIN_DELAY_SECONDS = 0.05


class WorkQueue:
    """Work queue with ``workers`` threads that call ``reconcile`` with the key of a run.

    Two threads never reconcile the same run at the same time.

    ``reconcile`` returns the time of its next call for the run (seconds since the epoch), or ``None`` to wait for the next
    change. If it raises an error, it is called again with exponential backoff.
    """

    def __init__(self, reconcile: Callable[[Key], float | None], workers: int = 8) -> None:
        self._reconcile = reconcile
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="reconcile")
        self._slots = asyncio.Semaphore(workers)
        self._busy: set[Key] = set()
        self._changed: dict[Key, float] = {}
        """Time of the first change since the last reconciliation began, by key of the run."""
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._errors: dict[Key, int] = {}
        """Number of failed reconciliations since the last successful one, by key of the run."""

    def add(self, key: Key) -> None:
        """Queue a run that has changed, so that it is reconciled as soon as a thread is free."""
        self._changed.setdefault(key, time.monotonic())
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key not in self._busy:
            self._busy.add(key)
            asyncio.get_running_loop().create_task(self._work(key))

    async def call(self, function: Callable[[], None]) -> None:
        """Run a blocking function in one of the worker threads, and wait until it returns."""
        await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Cancel queued reconciliations, and wait until the reconciliations in progress have finished."""
        for timer in self._timers.values():
            timer.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _work(self, key: Key) -> None:
        try:
            while key in self._changed:
                async with self._slots:
                    since = self._changed.pop(key)
                    again = await self._run_once(key)
                REACTION_SECONDS.observe(time.monotonic() - since)
                if key not in self._changed and again is not None:
                    delay = max(MIN_DELAY_SECONDS, again - time.time())
                    self._timers[key] = asyncio.get_running_loop().call_later(delay, self.add, key)
        finally:
            self._busy.discard(key)

    async def _run_once(self, key: Key) -> float | None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        try:
            again = await loop.run_in_executor(self._pool, self._reconcile, key)
        except Exception as error:
            count = self._errors[key] = self._errors.get(key, 0) + 1
            ERRORS.labels(type(error).__name__).inc()
            delay = min(MAX_BACKOFF_SECONDS, 2.0**count)
            with_traceback = log.isEnabledFor(logging.DEBUG)
            message = "cannot reconcile EditRun %s/%s: %s: %s; retrying in %.0f s"
            log.warning(message, *key, type(error).__name__, error, delay, exc_info=with_traceback)
            return time.time() + delay
        finally:
            RECONCILE_SECONDS.observe(time.monotonic() - began)
        self._errors.pop(key, None)
        return again
