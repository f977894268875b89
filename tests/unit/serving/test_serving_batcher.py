"""The batcher: batches across requests, limits, deadlines, cancellation and draining."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from editr1.data.types import FailureCause, ScoreFailure
from editr1.serving.batcher import Batcher, QueueFull, Stopped
from editr1.serving.engines.base import Sampling
from editr1.serving.scoring import score_batch

MakeBatcher = Callable[..., Batcher]
GREEDY = Sampling()


@pytest.fixture
def make_batcher(fake_engine) -> Iterator[MakeBatcher]:
    made: list[Batcher] = []

    def build(**settings: object) -> Batcher:
        batcher = Batcher(
            lambda items, sampling: score_batch(fake_engine, items, sampling),
            **{"max_batch_size": 4, "capacity": 16, **settings},  # type: ignore[arg-type]
        )
        made.append(batcher)
        return batcher

    yield build
    fake_engine.gate.set()
    for batcher in made:
        assert batcher.stop(10)


def ten_seconds_from_now() -> float:
    return time.monotonic() + 10


def occupy_engine(batcher: Batcher, fake_engine, make_items) -> object:
    """Submit an item that keeps the engine busy until its gate is opened."""
    fake_engine.gate.clear()
    ticket = batcher.submit(make_items(1), GREEDY, ten_seconds_from_now())
    wait_until(lambda: batcher._running == 1)
    return ticket


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_waiting_requests_share_a_batch(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher(max_batch_size=8)
    held = occupy_engine(batcher, fake_engine, make_items)
    tickets = [batcher.submit(make_items(2, red=[51, 102]), GREEDY, ten_seconds_from_now()) for _ in range(4)]
    fake_engine.gate.set()
    assert [[o.score for o in t.future.result(5)] for t in tickets] == [[2.0, 4.0]] * 4
    assert held.future.result(5)[0].ok
    assert [size for size, _ in fake_engine.batches] == [1, 8]


def test_large_request_is_split_into_batches(make_batcher, fake_engine, make_items) -> None:
    red = [25, 51, 76, 102, 127, 153, 178, 204, 229]
    ticket = make_batcher(max_batch_size=4).submit(make_items(9, red=red), GREEDY, ten_seconds_from_now())
    assert [o.score for o in ticket.future.result(5)] == [round(r / 25.5, 1) for r in red]
    assert [size for size, _ in fake_engine.batches] == [4, 4, 1]
    assert [timing.items for timing in ticket.timings] == [4, 4, 1]


def test_batch_size_counts_traces(make_batcher, fake_engine, make_items) -> None:
    several = Sampling(num_traces=3, temperature=1.0)
    make_batcher(max_batch_size=7).submit(make_items(4), several, ten_seconds_from_now()).future.result(5)
    assert [size for size, _ in fake_engine.batches] == [2, 2]
    fake_engine.batches.clear()
    make_batcher(max_batch_size=2).submit(make_items(2), several, ten_seconds_from_now()).future.result(5)
    assert [size for size, _ in fake_engine.batches] == [1, 1]


def test_different_sampling_settings_get_separate_batches_oldest_first(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher(max_batch_size=8)
    occupy_engine(batcher, fake_engine, make_items)
    warm = Sampling(temperature=1.0)
    tickets = [batcher.submit(make_items(1), s, ten_seconds_from_now()) for s in (GREEDY, warm, GREEDY, warm)]
    fake_engine.gate.set()
    for ticket in tickets:
        ticket.future.result(5)
    assert fake_engine.batches == [(1, GREEDY), (2, GREEDY), (2, warm)]


def test_idle_engine_waits_for_a_full_batch(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher(max_batch_size=4, wait_s=60)
    tickets = [batcher.submit(make_items(1), GREEDY, ten_seconds_from_now()) for _ in range(3)]
    with pytest.raises(TimeoutError):
        tickets[0].future.result(0.05)
    tickets.append(batcher.submit(make_items(1), GREEDY, ten_seconds_from_now()))
    for ticket in tickets:
        ticket.future.result(5)  # a full batch starts immediately
    assert [size for size, _ in fake_engine.batches] == [4]


def test_request_that_exceeds_the_queue_capacity_is_rejected_as_a_whole(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher(capacity=4)
    occupy_engine(batcher, fake_engine, make_items)
    batcher.submit(make_items(2), GREEDY, ten_seconds_from_now())
    assert batcher.in_flight == 3
    with pytest.raises(QueueFull) as refused:
        batcher.submit(make_items(2), GREEDY, ten_seconds_from_now())
    assert 1.0 <= refused.value.retry_after_s <= 30.0
    assert batcher.in_flight == 3
    assert not batcher.full
    batcher.submit(make_items(1), GREEDY, ten_seconds_from_now())
    assert batcher.full


def test_items_that_expire_in_the_queue_fail_without_being_scored(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher()
    occupy_engine(batcher, fake_engine, make_items)
    expired = batcher.submit(make_items(2), GREEDY, time.monotonic())
    in_time = batcher.submit(make_items(1), GREEDY, ten_seconds_from_now())
    fake_engine.gate.set()
    assert in_time.future.result(5)[0].ok
    outcomes = expired.future.result(5)
    assert all(isinstance(o, ScoreFailure) and o.cause is FailureCause.DEADLINE for o in outcomes)
    assert [size for size, _ in fake_engine.batches] == [1, 1]


def test_cancelled_requests_are_dropped_from_the_queue(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher()
    occupy_engine(batcher, fake_engine, make_items)
    cancelled = batcher.submit(make_items(3), GREEDY, ten_seconds_from_now())
    kept = batcher.submit(make_items(1), GREEDY, ten_seconds_from_now())
    assert cancelled.future.cancel()
    fake_engine.gate.set()
    kept.future.result(5)
    assert [size for size, _ in fake_engine.batches] == [1, 1]
    assert batcher.in_flight == 0


def test_worker_survives_an_engine_error(make_items) -> None:
    calls = []

    def fail(items, sampling):
        calls.append(len(items))
        raise MemoryError("no memory")

    batcher = Batcher(fail, max_batch_size=4, capacity=8)
    for _ in range(2):
        (outcome,) = batcher.submit(make_items(1), GREEDY, ten_seconds_from_now()).future.result(5)
        assert isinstance(outcome, ScoreFailure)
        assert outcome.cause is FailureCause.ENGINE
        assert "MemoryError: no memory" in outcome.detail
    assert calls == [1, 1]
    assert batcher.stop(5)


def test_stopping_completes_queued_requests_and_rejects_new_ones(make_batcher, fake_engine, make_items) -> None:
    batcher = make_batcher()
    occupy_engine(batcher, fake_engine, make_items)
    queued = [batcher.submit(make_items(2), GREEDY, ten_seconds_from_now()) for _ in range(3)]
    stopper = threading.Thread(target=batcher.stop)
    stopper.start()
    wait_until(lambda: batcher._stopping)
    with pytest.raises(Stopped):
        batcher.submit(make_items(1), GREEDY, ten_seconds_from_now())
    fake_engine.gate.set()
    stopper.join(5)
    assert not stopper.is_alive()
    assert all(o.ok for ticket in queued for o in ticket.future.result(0))
    assert not batcher.alive


def test_concurrent_clients_get_their_own_outcomes(make_batcher, make_items) -> None:
    batcher = make_batcher(max_batch_size=5, capacity=1000)
    wrong = []

    def client(number: int) -> None:
        for turn in range(10):
            red = (number * 10 + turn) % 250 + 1
            items = make_items(1 + turn % 3, seed=number, red=[red] * 3)
            outcomes = batcher.submit(items, GREEDY, ten_seconds_from_now()).future.result(10)
            if [o.score for o in outcomes] != [round(red / 25.5, 1)] * len(items):
                wrong.append((number, turn))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_empty_request_resolves_immediately(make_batcher, fake_engine) -> None:
    assert make_batcher().submit([], GREEDY, ten_seconds_from_now()).future.result(0) == []
    assert fake_engine.batches == []


@pytest.mark.parametrize("change", [lambda found: found[::-1], lambda found: found[:-1], lambda found: [found[0]] * 2])
def test_outcomes_of_other_edits_are_not_used(change, fake_engine, make_items) -> None:
    def confuse(items, sampling):
        batch = score_batch(fake_engine, items, sampling)
        return replace(batch, outcomes=change(batch.outcomes))

    batcher = Batcher(confuse, max_batch_size=4, capacity=16)
    outcomes = batcher.submit(make_items(2, red=[51, 102]), GREEDY, ten_seconds_from_now()).future.result(10)
    assert batcher.stop(10)
    assert [o.cause for o in outcomes if isinstance(o, ScoreFailure)] == [FailureCause.ENGINE] * 2
    assert "confused the edits of a batch" in outcomes[0].detail
