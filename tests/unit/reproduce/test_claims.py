"""What is compared, how sure it is, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from editr1.config.reproduce import SMALLEST, Budget
from editr1.evaluation.items import EditItem, PairItem, TruthItem
from editr1.evaluation.metrics import Bootstrap, Estimate, mean_estimate
from editr1.reproduce.claims import NAMES, TITLES, Comparison, Outcome, chosen, make_contrasts, outcome
from editr1.reproduce.experiments import make_cells, run_of, with_needs
from editr1.reproduce.measures import Evaluated, Measure, differences
from editr1.reproduce.nested import nested_estimate
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import check_run

ANY = Measure("gcpo", "half_credit")


def contrast(kind: str = "gain", least: float = 0.0, most: float = 0.0) -> Comparison:
    return Comparison(2, "a over b", ANY, Measure("tv", "half_credit"), kind=kind, least=least, most=most)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "low", "high", "least", "expected"),
    [
        (0.06, 0.04, 0.08, 0.0, Outcome.HOLDS),
        (0.06, 0.04, 0.08, 0.05, Outcome.HOLDS),
        (0.04, 0.02, 0.06, 0.05, Outcome.OPEN),
        (0.03, 0.02, 0.04, 0.05, Outcome.FAILS),
        (0.03, -0.01, 0.07, 0.0, Outcome.OPEN),
        (0.06, -0.01, 0.13, 0.05, Outcome.OPEN),
        (-0.03, -0.05, -0.01, 0.0, Outcome.FAILS),
    ],
)
def test_a_gain_holds_only_with_its_whole_interval_and_its_size(
    value: float, low: float, high: float, least: float, expected: Outcome
) -> None:
    assert outcome(contrast(least=least), Estimate(value=value, low=low, high=high, n=9)) is expected


def test_a_control_fails_when_it_gains_and_nothing_is_said_of_what_was_not_measured() -> None:
    control = contrast("control", most=0.02)
    assert outcome(control, Estimate(value=0.02, low=0.01, high=0.03, n=9)) is Outcome.FAILS
    assert outcome(control, Estimate(value=0.0, low=-0.01, high=0.01, n=9)) is Outcome.HOLDS
    assert outcome(control, Estimate(value=0.02, low=-0.01, high=0.05, n=9)) is Outcome.OPEN
    assert outcome(control, Estimate(value=-0.5, low=-0.6, high=-0.4, n=9)) is Outcome.HOLDS
    assert outcome(control, None) is Outcome.MISSING


def test_every_claim_has_parts_a_title_and_a_name_and_only_picks_among_them() -> None:
    contrasts = make_contrasts(Budget())
    assert {item.claim for item in contrasts} == set(TITLES) == set(NAMES)
    assert {item.claim for item in chosen(contrasts, ["gcpo", "gsb"])} == {2, 6}
    assert chosen(contrasts, []) == contrasts
    with pytest.raises(ValueError, match="no claim 'gpco'; there are: curation"):
        chosen(contrasts, ["gpco"])


@pytest.mark.parametrize("budget", [Budget(), SMALLEST])
def test_every_cell_is_a_run_file_that_can_run_after_those_it_needs(budget: Budget) -> None:
    cells = make_cells(7, budget)
    names = {name for item in make_contrasts(budget) for name in item.cells}
    assert names <= cells.keys()
    made: set[str] = set()
    for cell in with_needs(names, cells):
        check_run(run_of(cell, 7, "file:///tmp/x"), cell.name)
        read = {
            parse_reference(text).target.split("/")[0]
            for stage in cell.stages
            for text in stage.inputs.values()
            if parse_reference(text).scheme is Scheme.RUN
        }
        assert read <= made, cell.name
        made.add(f"s7-{cell.name}")


def test_only_what_a_claim_needs_is_run() -> None:
    cells = make_cells(7, Budget())
    assert [cell.name for cell in with_needs(["gcpo"], cells)] == ["data", "tv", "gcpo"]
    assert [cell.name for cell in with_needs(["v"], cells)] == ["data", "data-v", "v"]
    assert [cell.name for cell in with_needs(["holistic"], cells)] == ["data-holistic", "holistic"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"averaged": (1,)}, "averaged"),
        ({"averaged": (2, 4)}, "averaged"),
        ({"few_pairs": (2000,)}, "must be below pairs"),
        ({"editor_curve": (120,)}, "must be below iterations"),
        ({"few_pairs": (6,)}, "pairs_per_rollout 12"),
    ],
)
def test_a_budget_that_cannot_be_run_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Budget(**changes)


def test_a_verifier_that_scored_nothing_measures_nothing() -> None:
    failed = Evaluated((PairItem(pair_id="a", verifier="rl", winner=None, loser=None),))
    assert ANY.values(failed) == {}


def test_two_cells_are_compared_on_the_pairs_that_both_scored() -> None:
    def pairs(*scores: tuple[str, float | None, float]) -> Evaluated:
        return Evaluated(tuple(PairItem(pair_id=i, verifier="rl", winner=w, loser=lo) for i, w, lo in scores))

    first = ANY.values(pairs(("a", 9, 1), ("b", 5, 5), ("c", 1, 9), ("d", 9, 1)))
    second = ANY.values(pairs(("a", 5, 5), ("b", 5, 5), ("c", None, 9)))
    assert first == {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}
    assert differences(first, second, "half_credit").tolist() == [0.5, 0.0]


def test_an_edit_that_the_verifier_likes_and_the_truth_does_not_is_hacked() -> None:
    def edit(name: str, true: float, score: float | None) -> EditItem:
        truth = TruthItem(score=true, follow=1, keep=0.5, quality=0)
        return EditItem(case_id=name, editor="after", truth=truth, score=score)

    edits = Evaluated(edits=(edit("a", 2, 9), edit("b", 9, 9), edit("c", 2, 3), edit("d", 2, None)))
    assert Measure("e", "hacked", "after").values(edits) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert Measure("e", "keep", "after").values(edits)["a"] == 0.5
    better = Measure("e", "better", "after").values(edits)
    assert differences(better, {"a": 1.0, "b": 10.0, "c": 2.0}, "better").tolist() == [1.0, -1.0, 0.0]


def test_one_seed_gives_the_interval_over_items_and_more_seeds_that_differ_widen_it() -> None:
    rng, bootstrap = np.random.default_rng(0), Bootstrap(samples=4000)
    items = rng.normal(0.1, 1.0, 500)
    alone, plain = nested_estimate([items], bootstrap), mean_estimate(items, bootstrap)
    assert (alone.value, alone.n) == (plain.value, 500)
    assert alone.low == pytest.approx(plain.low, abs=0.01)
    same = nested_estimate([items] * 4, bootstrap)
    apart = nested_estimate([items - 1, items - 0.5, items + 0.5, items + 1], bootstrap)
    assert same.value == pytest.approx(apart.value)
    assert same.high - same.low < 0.7 * (alone.high - alone.low)
    assert apart.high - apart.low > 3 * (same.high - same.low)


def test_the_two_stage_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(100):
        seeds = [rng.normal(shift, 1.0, 60) for shift in rng.normal(0.0, 0.3, 8)]
        found = nested_estimate(seeds, Bootstrap(samples=200))
        inside += found.low <= 0.0 <= found.high
    assert 0.82 < inside / 100 <= 1.0


def test_nothing_measured_is_an_error_and_never_a_number() -> None:
    for nothing in ([], [np.array([])]):
        with pytest.raises(ValueError, match="nothing was measured"):
            nested_estimate(nothing, Bootstrap())
