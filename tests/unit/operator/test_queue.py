"""Which run is looked at when: one look at a time each, and no change is missed."""

from __future__ import annotations

import asyncio
import threading
import time

from editr1_operator.queue import WorkQueue

KEY = ("lab", "quick")


async def until(test: object) -> None:
    end = time.monotonic() + 20
    while not test():  # type: ignore[operator]
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_changes_during_a_look_bring_one_more_and_never_two_at_once() -> None:
    now, most, looks = 0, 0, 0
    gate = threading.Event()

    def look(_key: tuple[str, str]) -> float | None:
        nonlocal now, most, looks
        now, looks = now + 1, looks + 1
        most = max(most, now)
        gate.wait(20)
        now -= 1
        return None

    async def work() -> None:
        queue = WorkQueue(look, workers=4)
        queue.add(KEY)
        await until(lambda: looks == 1)
        for _ in range(5):
            queue.add(KEY)
        gate.set()
        await until(lambda: looks == 2 and now == 0)
        await asyncio.sleep(0.1)
        queue.close()

    asyncio.run(work())
    assert (looks, most) == (2, 1)


def test_a_look_that_fails_is_taken_again_and_one_that_asks_comes_again() -> None:
    seen: list[float] = []

    def look(_key: tuple[str, str]) -> float | None:
        seen.append(time.time())
        if len(seen) == 1:
            raise OSError("the API server is away")
        return time.time() + 0.1 if len(seen) == 2 else None

    async def work() -> None:
        queue = WorkQueue(look)
        queue.add(KEY)
        await until(lambda: len(seen) == 1)
        queue.add(KEY)  # a change does not wait for the pause after a failure
        await until(lambda: len(seen) == 3)
        await asyncio.sleep(0.2)
        queue.close()

    asyncio.run(work())
    assert len(seen) == 3
    assert seen[2] - seen[1] >= 0.09
