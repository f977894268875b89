"""A bounded queue of edits in front of one engine, batched over waiting requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.serving.engines.base import Sampling
from editr1.serving.scoring import ScoredBatch

Run = Callable[[Sequence[ScoreItem], Sampling], ScoredBatch]


class QueueFull(Exception):
    """The request does not fit; ``retry_after_s`` is when it probably will, from the recent pace."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"queue is full, retry in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Stopped(Exception):
    """The batcher takes nothing more."""


@dataclass
class Part:
    """What one batch did for one request: times in nanoseconds since the epoch, and how much it held."""

    items: int
    batch_items: int
    queued_ns: int
    start_ns: int
    generate_start_ns: int
    generate_end_ns: int
    end_ns: int


@dataclass
class Ticket:
    """A request in the batcher. ``future`` gives the outcomes, index-aligned with the items that were submitted."""

    sampling: Sampling
    deadline: float
    outcomes: list[ScoreOutcome | None]
    left: int
    queued_ns: int
    future: Future[list[ScoreOutcome]] = field(default_factory=Future)
    parts: list[Part] = field(default_factory=list)


@dataclass
class _Entry:
    ticket: Ticket
    index: int
    item: ScoreItem


class Batcher:
    """Runs ``run`` in one worker thread on batches of at most ``max_batch_size`` traces, at least one item.

    Items of several requests share a batch when they want the same sampling; the oldest waiting item always goes first,
    so none starves. An idle worker waits ``wait_s`` for more before it starts a batch that is not full. At most
    ``capacity`` items are queued or running. An item whose deadline (``time.monotonic``) passes in the queue fails with
    cause ``deadline`` and is never run; a ticket whose future is cancelled is dropped from the queue.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_size: int,
        capacity: int,
        wait_s: float = 0.0,
        on_batch: Callable[[list[ScoreOutcome], ScoredBatch], None] | None = None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch_size
        self._capacity = capacity
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._queue: deque[_Entry] = deque()
        self._running = 0
        self._seconds_an_item = 0.1
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="editr1-batcher", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Items queued or running."""
        with self._changed:
            return len(self._queue) + self._running

    @property
    def full(self) -> bool:
        """Whether not even one more item fits."""
        return self.in_flight >= self._capacity

    @property
    def alive(self) -> bool:
        """Whether the worker thread runs."""
        return self._thread.is_alive()

    def retry_after_s(self, items: int) -> float:
        """Seconds, from 1 to 30, after which ``items`` more will probably fit at the recent pace."""
        excess = self.in_flight + items - self._capacity
        return min(30.0, max(1.0, excess * self._seconds_an_item))

    def submit(self, items: Sequence[ScoreItem], sampling: Sampling, deadline: float) -> Ticket:
        """Queue ``items``, all or none; ``deadline`` is on the clock of ``time.monotonic``.

        Raises:
            QueueFull: they do not fit now.
            Stopped: after :meth:`stop`.
        """
        ticket = Ticket(sampling, deadline, [None] * len(items), len(items), time.time_ns())
        if not items:
            ticket.future.set_result([])
            return ticket
        with self._changed:
            if self._stopping:
                raise Stopped
            if self.in_flight + len(items) > self._capacity:
                raise QueueFull(self.retry_after_s(len(items)))
            self._queue.extend(_Entry(ticket, index, item) for index, item in enumerate(items))
            self._changed.notify()
        return ticket

    def stop(self, timeout_seconds: float | None = None) -> bool:
        """Take nothing more, finish what is queued, end the worker. False when that took longer than ``timeout_seconds``."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._stopping:
                    self._changed.wait()
                if not self._queue:
                    return
                self._linger()
                batch, late = self._take()
                self._running = len(batch)
            for entry in late:
                _settle(entry, ScoreFailure(cause=FailureCause.DEADLINE, detail="deadline passed in the queue"))
            if batch:
                self._process(batch)

    def _linger(self) -> None:
        until = time.monotonic() + self._wait_s
        while len(self._queue) < self._room(self._queue[0].ticket.sampling) and not self._stopping:
            rest = until - time.monotonic()
            if rest <= 0:
                return
            self._changed.wait(rest)

    def _room(self, sampling: Sampling) -> int:
        return max(1, self._max_batch // sampling.num_traces)

    def _take(self) -> tuple[list[_Entry], list[_Entry]]:
        now = time.monotonic()
        batch: list[_Entry] = []
        late: list[_Entry] = []
        rest: deque[_Entry] = deque()
        for entry in self._queue:
            if entry.ticket.future.cancelled():
                continue
            if entry.ticket.deadline <= now:
                late.append(entry)
            elif not batch or (
                entry.ticket.sampling == batch[0].ticket.sampling and len(batch) < self._room(entry.ticket.sampling)
            ):
                batch.append(entry)
            else:
                rest.append(entry)
        self._queue = rest
        return batch, late

    def _process(self, batch: list[_Entry]) -> None:
        start_ns = time.time_ns()
        items = [entry.item for entry in batch]
        try:
            done = self._run(items, batch[0].ticket.sampling)
            if len(done.outcomes) != len(items):
                raise RuntimeError(f"{len(done.outcomes)} outcomes for {len(items)} items")
        except Exception as error:  # the worker must outlive whatever an engine does
            failure = ScoreFailure(cause=FailureCause.ENGINE, detail=f"{type(error).__name__}: {error}"[:1000])
            done = ScoredBatch([failure] * len(items), start_ns, time.time_ns())
        end_ns = time.time_ns()
        with self._changed:
            self._running = 0
            pace = (end_ns - start_ns) / 1e9 / len(items)
            self._seconds_an_item += 0.3 * (pace - self._seconds_an_item)
        if self._on_batch is not None:
            self._on_batch(done.outcomes, done)
        sizes: dict[int, Part] = {}
        for entry in batch:
            part = sizes.get(id(entry.ticket))
            if part is None:
                part = sizes[id(entry.ticket)] = Part(
                    items=0,
                    batch_items=len(batch),
                    queued_ns=entry.ticket.queued_ns,
                    start_ns=start_ns,
                    generate_start_ns=done.generate_start_ns,
                    generate_end_ns=done.generate_end_ns,
                    end_ns=end_ns,
                )
                entry.ticket.parts.append(part)
            part.items += 1
        for entry, outcome in zip(batch, done.outcomes, strict=True):
            _settle(entry, outcome)


def _settle(entry: _Entry, outcome: ScoreOutcome) -> None:
    ticket = entry.ticket
    ticket.outcomes[entry.index] = outcome
    ticket.left -= 1
    if ticket.left == 0 and ticket.future.set_running_or_notify_cancel():
        ticket.future.set_result([outcome for outcome in ticket.outcomes if outcome is not None])
