"""The order in which runs are started."""

from __future__ import annotations

from editr1.config.reproduce import SMALLEST
from editr1.reproduce.plan import PlannedRun, make_plan, next_run


def names(items: list[PlannedRun]) -> list[str]:
    return [item.run for item in items]


def test_plan_lists_runs_by_seed_after_their_dependencies() -> None:
    plan = make_plan(["gcpo", "v"], [3, 4], SMALLEST)
    assert names(plan) == [
        f"s{seed}-{experiment}" for seed in (3, 4) for experiment in ("data", "data-v", "tv", "v", "gcpo")
    ]
    assert [(item.number, item.total) for item in plan] == [(n, 10) for n in range(1, 11)]
    seen: set[str] = set()
    for item in plan:
        assert set(item.needs) <= seen
        seen.add(item.run)


def test_run_waits_for_its_dependencies_while_independent_runs_start() -> None:
    plan = make_plan(["gcpo", "v"], [3], SMALLEST)
    everything = set(names(plan))
    first = next_run(plan, everything)
    assert first is not None
    assert first.run == "s3-data"
    # While the T+V data is generated, only the run that generates the V data can start.
    beside = next_run(plan[1:], everything)
    assert beside is not None
    assert beside.run == "s3-data-v"
    waiting = [item for item in plan if item.experiment.name in ("tv", "v", "gcpo")]
    assert next_run(waiting, everything) is None
    after = next_run(waiting, everything - {"s3-data"})
    assert after is not None
    assert after.run == "s3-tv"


def test_next_seed_starts_before_the_previous_one_has_ended() -> None:
    plan = make_plan(["gcpo"], [3, 4], SMALLEST)
    running = {"s3-gcpo"}
    waiting = [item for item in plan if item.seed == 4]
    found = next_run(waiting, running | {item.run for item in waiting})
    assert found is not None
    assert found.run == "s4-data"
