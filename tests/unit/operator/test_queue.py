"""The work queue: one reconciliation at a time per run, and no change is missed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from editr1_operator.queue import WorkQueue

KEY = ("lab", "quick")


def idle(queue: WorkQueue) -> bool:
    """Return whether no reconciliation is running or scheduled."""
    return not queue._busy and all(timer.cancelled() or timer.when() < now() for timer in queue._timers.values())


def now() -> float:
    """Return the time of the event loop's clock, which its timers use."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_changes_during_a_reconciliation_cause_exactly_one_more() -> None:
    running, most, calls = 0, 0, 0
    gate = threading.Event()

    def reconcile(_key: tuple[str, str]) -> float | None:
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)
        gate.wait(20)
        running -= 1
        return None

    async def work() -> None:
        queue = WorkQueue(reconcile, workers=4)
        queue.add(KEY)
        await until(lambda: calls == 1)
        for _ in range(5):
            queue.add(KEY)
        gate.set()
        await until(lambda: calls == 2 and running == 0)
        await until(lambda: idle(queue))
        queue.close()

    asyncio.run(work())
    assert (calls, most) == (2, 1)


def test_reconciliation_is_repeated_after_a_change_and_when_requested() -> None:
    seen: list[float] = []

    def reconcile(_key: tuple[str, str]) -> float | None:
        seen.append(time.time())
        if len(seen) == 1:
            raise OSError("the API server is unreachable")
        return time.time() + 0.1 if len(seen) == 2 else None

    async def work() -> None:
        queue = WorkQueue(reconcile)
        queue.add(KEY)
        await until(lambda: len(seen) == 1)
        queue.add(KEY)  # a change does not wait for the backoff after an error
        await until(lambda: len(seen) == 3)
        await until(lambda: idle(queue))
        queue.close()

    asyncio.run(work())
    assert len(seen) == 3
    assert seen[2] - seen[1] >= 0.09
