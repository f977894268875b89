"""A bounded queue of edits that one engine scores in batches. Items from several requests can share a batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome, outcomes_fault
from editr1.serving.engines.base import Sampling
from editr1.serving.scoring import ScoredBatch

ScoreBatch = Callable[[Sequence[ScoreItem], Sampling], ScoredBatch]

_SMOOTHING = 0.3
"""Weight of the latest batch in the moving average of the seconds per item."""


class QueueFull(Exception):
    """The queue has no space for the request.

    ``retry_after_s`` is the estimated number of seconds until the queue has enough space.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full; retry in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Stopped(Exception):
    """The batcher was stopped and accepts no more requests."""


@dataclass
class BatchTiming:
    """Times at which the items of one request in one batch were queued and scored, in nanoseconds since the epoch."""

    items: int
    """Number of items of this request in the batch."""
    batch_items: int
    """Number of items of all requests in the batch."""
    queued_ns: int
    start_ns: int
    generate_start_ns: int
    generate_end_ns: int
    end_ns: int


@dataclass
class Ticket:
    """Handle of a request that was submitted to a :class:`Batcher`.

    The result of ``future`` is a list with one outcome per item, in the order of the items.
    """

    sampling: Sampling
    deadline: float
    """Deadline of the request, on the clock of ``time.monotonic``."""
    outcomes: list[ScoreOutcome | None]
    remaining: int
    queued_ns: int
    future: Future[list[ScoreOutcome]] = field(default_factory=Future)
    timings: list[BatchTiming] = field(default_factory=list)


@dataclass
class _Entry:
    ticket: Ticket
    index: int
    item: ScoreItem


class Batcher:
    """Collects items into batches and calls ``score`` with each batch in a worker thread.

    A batch has at most ``max_batch_size`` traces, unless a single item has more. Items of several requests share a
    batch if they use the same sampling settings. Every batch contains the oldest queued item, so that no request
    starves. An idle worker waits ``wait_s`` seconds for more items before it starts a batch that is not full. At most
    ``capacity`` items are queued or being scored. An item whose deadline passes while it is queued fails with cause
    ``deadline`` and is not scored. If the caller cancels the future of a request, the request's items are removed from
    the queue.
    """

    def __init__(
        self,
        score: ScoreBatch,
        *,
        max_batch_size: int,
        capacity: int,
        wait_s: float = 0.0,
        on_batch: Callable[[ScoredBatch], None] | None = None,
    ) -> None:
        self._score = score
        self._max_batch_size = max_batch_size
        self._capacity = capacity
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._queue: deque[_Entry] = deque()
        self._running = 0
        self._seconds_per_item = 0.1
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="editr1-batcher", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Number of items that are queued or being scored."""
        with self._changed:
            return len(self._queue) + self._running

    @property
    def full(self) -> bool:
        """Whether the queue is full, so that it cannot accept another item."""
        return self.in_flight >= self._capacity

    @property
    def alive(self) -> bool:
        """Whether the worker thread is running."""
        return self._thread.is_alive()

    def retry_after_s(self, items: int) -> float:
        """Return the estimated number of seconds until ``items`` more items fit into the queue.

        The estimate is based on the recent throughput and is between 1 and 30 s.
        """
        excess = self.in_flight + items - self._capacity
        return min(30.0, max(1.0, excess * self._seconds_per_item))

    def submit(self, items: Sequence[ScoreItem], sampling: Sampling, deadline: float) -> Ticket:
        """Add ``items`` to the queue as one request. ``deadline`` is on the clock of ``time.monotonic``.

        Raises:
            QueueFull: The queue does not have space for all items, and none was added.
            Stopped: :meth:`stop` was called.
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
        """Reject new requests, score the queued items and stop the worker thread.

        Return False if this takes longer than ``timeout_seconds``.
        """
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
                self._wait_for_full_batch()
                batch, expired = self._take_batch()
                self._running = len(batch)
            for entry in expired:
                failure = ScoreFailure(
                    edited=entry.item.edited.digest,
                    cause=FailureCause.DEADLINE,
                    detail="the deadline passed while the item was queued; set a later deadline",
                )
                _set_outcome(entry, failure)
            if batch:
                self._process(batch)

    def _wait_for_full_batch(self) -> None:
        until = time.monotonic() + self._wait_s
        while len(self._queue) < self._max_items(self._queue[0].ticket.sampling) and not self._stopping:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _max_items(self, sampling: Sampling) -> int:
        return max(1, self._max_batch_size // sampling.num_traces)

    def _take_batch(self) -> tuple[list[_Entry], list[_Entry]]:
        """Remove the next batch from the queue, along with all items that are cancelled or whose deadline has passed.

        Return the batch and the items whose deadline has passed.
        """
        now = time.monotonic()
        batch: list[_Entry] = []
        expired: list[_Entry] = []
        rest: deque[_Entry] = deque()
        for entry in self._queue:
            sampling = entry.ticket.sampling
            if entry.ticket.future.cancelled():
                continue
            if entry.ticket.deadline <= now:
                expired.append(entry)
            elif not batch or (sampling == batch[0].ticket.sampling and len(batch) < self._max_items(sampling)):
                batch.append(entry)
            else:
                rest.append(entry)
        self._queue = rest
        return batch, expired

    def _process(self, batch: list[_Entry]) -> None:
        start_ns = time.time_ns()
        items = [entry.item for entry in batch]
        try:
            done = self._score(items, batch[0].ticket.sampling)
            if fault := outcomes_fault(items, done.outcomes):
                raise RuntimeError(f"the scorer confused the edits of a batch: {fault}")
        except Exception as error:  # The worker thread must survive any exception from the engine.
            detail = f"{type(error).__name__}: {error}"[:1000]
            failures = [ScoreFailure(edited=i.edited.digest, cause=FailureCause.ENGINE, detail=detail) for i in items]
            done = ScoredBatch([*failures], start_ns, time.time_ns())
        end_ns = time.time_ns()
        with self._changed:
            self._running = 0
            seconds_per_item = (end_ns - start_ns) / 1e9 / len(items)
            self._seconds_per_item += _SMOOTHING * (seconds_per_item - self._seconds_per_item)
        if self._on_batch is not None:
            self._on_batch(done)
        _record_timings(batch, done, start_ns, end_ns)
        for entry, outcome in zip(batch, done.outcomes, strict=True):
            _set_outcome(entry, outcome)


def _record_timings(batch: list[_Entry], done: ScoredBatch, start_ns: int, end_ns: int) -> None:
    """Add a ``BatchTiming`` to the ticket of every request that has items in the batch."""
    timings: dict[int, BatchTiming] = {}
    for entry in batch:
        timing = timings.get(id(entry.ticket))
        if timing is None:
            timing = timings[id(entry.ticket)] = BatchTiming(
                items=0,
                batch_items=len(batch),
                queued_ns=entry.ticket.queued_ns,
                start_ns=start_ns,
                generate_start_ns=done.generate_start_ns,
                generate_end_ns=done.generate_end_ns,
                end_ns=end_ns,
            )
            entry.ticket.timings.append(timing)
        timing.items += 1


def _set_outcome(entry: _Entry, outcome: ScoreOutcome) -> None:
    ticket = entry.ticket
    ticket.outcomes[entry.index] = outcome
    ticket.remaining -= 1
    if ticket.remaining == 0 and ticket.future.set_running_or_notify_cancel():
        ticket.future.set_result([outcome for outcome in ticket.outcomes if outcome is not None])
