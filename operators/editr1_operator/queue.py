"""Which run is looked at next: one at a time each, again when something changed meanwhile, later when asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from editr1_operator.cache import Key
from editr1_operator.metrics import ERRORS, REACTION_SECONDS, RECONCILE_SECONDS

log = logging.getLogger("editr1.operator")
LONGEST_BACKOFF = 60.0


class WorkQueue:
    """``look`` is called in one of ``workers`` threads; it returns when to call it again, None for not at all."""

    def __init__(self, look: Callable[[Key], float | None], workers: int = 8) -> None:
        self._look = look
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="look")
        self._free = asyncio.Semaphore(workers)
        self._busy: set[Key] = set()
        self._changed: dict[Key, float] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._errors: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Something changed: look as soon as possible."""
        self._changed.setdefault(key, time.monotonic())
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key not in self._busy:
            self._busy.add(key)
            asyncio.get_running_loop().create_task(self._work(key))

    async def call(self, function: Callable[[], None]) -> None:
        """Run something that blocks in one of the threads."""
        await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Take no more; looks that are under way end."""
        for timer in self._timers.values():
            timer.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _work(self, key: Key) -> None:
        try:
            while key in self._changed:
                async with self._free:
                    since = self._changed.pop(key)
                    again = await self._once(key)
                REACTION_SECONDS.observe(time.monotonic() - since)
                if key not in self._changed and again is not None:
                    delay = max(0.05, again - time.time())
                    self._timers[key] = asyncio.get_running_loop().call_later(delay, self.add, key)
        finally:
            self._busy.discard(key)

    async def _once(self, key: Key) -> float | None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        try:
            again = await loop.run_in_executor(self._pool, self._look, key)
        except Exception as error:
            tries = self._errors[key] = self._errors.get(key, 0) + 1
            ERRORS.labels(type(error).__name__).inc()
            log.warning("%s/%s: %s: %s", *key, type(error).__name__, error, exc_info=log.isEnabledFor(logging.DEBUG))
            return time.time() + min(LONGEST_BACKOFF, 2.0**tries)
        finally:
            RECONCILE_SECONDS.observe(time.monotonic() - began)
        self._errors.pop(key, None)
        return again
