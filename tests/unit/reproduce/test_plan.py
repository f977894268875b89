"""Which cell is next."""

from __future__ import annotations

from editr1.config.reproduce import SMALLEST
from editr1.reproduce.plan import Item, make_plan, next_item


def names(items: list[Item]) -> list[str]:
    return [item.run for item in items]


def test_the_plan_holds_what_is_needed_seed_by_seed_and_each_after_its_needs() -> None:
    plan = make_plan(["gcpo", "v"], [3, 4], SMALLEST)
    assert names(plan) == [f"s{seed}-{cell}" for seed in (3, 4) for cell in ("data", "data-v", "tv", "v", "gcpo")]
    assert [(item.number, item.total) for item in plan] == [(n, 10) for n in range(1, 11)]
    seen: set[str] = set()
    for item in plan:
        assert set(item.needs) <= seen
        seen.add(item.run)


def test_a_cell_waits_for_its_needs_and_another_takes_its_turn() -> None:
    plan = make_plan(["gcpo", "v"], [3], SMALLEST)
    everything = set(names(plan))
    first = next_item(plan, everything)
    assert first is not None
    assert first.run == "s3-data"
    # While the data of T+V is made, only the data of V can be made beside it.
    beside = next_item(plan[1:], everything)
    assert beside is not None
    assert beside.run == "s3-data-v"
    waiting = [item for item in plan if item.cell.name in ("tv", "v", "gcpo")]
    assert next_item(waiting, everything) is None
    after = next_item(waiting, everything - {"s3-data"})
    assert after is not None
    assert after.run == "s3-tv"


def test_the_next_seed_fills_the_tail_of_the_one_before() -> None:
    plan = make_plan(["gcpo"], [3, 4], SMALLEST)
    running = {"s3-gcpo"}
    waiting = [item for item in plan if item.seed == 4]
    found = next_item(waiting, running | {item.run for item in waiting})
    assert found is not None
    assert found.run == "s4-data"
