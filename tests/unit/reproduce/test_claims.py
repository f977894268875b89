"""Comparisons, their intervals, and the rule that decides them."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from editr1.config.reproduce import SMALLEST, Budget
from editr1.evaluation.items import EditItem, PairItem, TruthItem
from editr1.evaluation.metrics import Bootstrap, Estimate, mean_estimate
from editr1.reproduce.claims import (
    CLAIM_NAMES,
    CLAIM_TITLES,
    Comparison,
    Outcome,
    make_comparisons,
    outcome,
    select_claims,
)
from editr1.reproduce.experiments import make_experiments, run_spec, with_dependencies
from editr1.reproduce.metrics import EvaluatedItems, Measure, differences
from editr1.reproduce.nested_bootstrap import nested_estimate
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.spec import check_run

ANY = Measure("gcpo", "half_credit")


def comparison(kind: str = "gain", least: float = 0.0, most: float = 0.0) -> Comparison:
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
def test_gain_holds_only_if_its_interval_is_above_zero_and_its_size_suffices(
    value: float, low: float, high: float, least: float, expected: Outcome
) -> None:
    assert outcome(comparison(least=least), Estimate(value=value, low=low, high=high, n=9)) is expected


def test_control_fails_if_it_gains_and_missing_measurement_is_reported() -> None:
    control = comparison("control", most=0.02)
    assert outcome(control, Estimate(value=0.02, low=0.01, high=0.03, n=9)) is Outcome.FAILS
    assert outcome(control, Estimate(value=0.0, low=-0.01, high=0.01, n=9)) is Outcome.HOLDS
    assert outcome(control, Estimate(value=0.02, low=-0.01, high=0.05, n=9)) is Outcome.OPEN
    assert outcome(control, Estimate(value=-0.5, low=-0.6, high=-0.4, n=9)) is Outcome.HOLDS
    assert outcome(control, None) is Outcome.MISSING


def test_every_claim_has_comparisons_title_and_name_and_can_be_selected() -> None:
    comparisons = make_comparisons(Budget())
    assert {item.claim for item in comparisons} == set(CLAIM_TITLES) == set(CLAIM_NAMES)
    assert {item.claim for item in select_claims(comparisons, ["gcpo", "gsb"])} == {2, 6}
    assert select_claims(comparisons, []) == comparisons
    with pytest.raises(ValueError, match="there is no claim 'gpco'; choose from: curation"):
        select_claims(comparisons, ["gpco"])


@pytest.mark.parametrize("budget", [Budget(), SMALLEST])
def test_every_experiment_is_a_valid_run_that_reads_only_earlier_runs(budget: Budget) -> None:
    experiments = make_experiments(7, budget)
    names = {name for item in make_comparisons(budget) for name in item.experiments}
    assert names <= experiments.keys()
    made: set[str] = set()
    for experiment in with_dependencies(names, experiments):
        check_run(run_spec(experiment, 7, "file:///tmp/x"), experiment.name)
        read = {
            parse_reference(text).target.split("/")[0]
            for stage in experiment.stages
            for text in stage.inputs.values()
            if parse_reference(text).scheme is Scheme.RUN
        }
        assert read <= made, experiment.name
        made.add(f"s7-{experiment.name}")


def test_plan_has_only_the_experiments_that_a_claim_needs() -> None:
    experiments = make_experiments(7, Budget())
    assert [experiment.name for experiment in with_dependencies(["gcpo"], experiments)] == ["data", "tv", "gcpo"]
    assert [experiment.name for experiment in with_dependencies(["v"], experiments)] == ["data", "data-v", "v"]
    assert [experiment.name for experiment in with_dependencies(["holistic"], experiments)] == [
        "data-holistic",
        "holistic",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"averaged": (1,)}, "averaged"),
        ({"averaged": (2, 4)}, "averaged"),
        ({"few_pairs": (2000,)}, "must be below the setting pairs"),
        ({"editor_curve": (120,)}, "must be below the setting iterations"),
        ({"few_pairs": (6,)}, "pairs_per_rollout 12"),
    ],
)
def test_inconsistent_budget_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Budget(**changes)


def test_verifier_without_scores_has_no_metrics() -> None:
    failed = EvaluatedItems((PairItem(pair_id="a", verifier="rl", winner=None, loser=None),))
    assert ANY.values(failed) == {}


def test_experiments_are_compared_on_the_pairs_that_both_scored() -> None:
    def pairs(*scores: tuple[str, float | None, float]) -> EvaluatedItems:
        return EvaluatedItems(tuple(PairItem(pair_id=i, verifier="rl", winner=w, loser=lo) for i, w, lo in scores))

    first = ANY.values(pairs(("a", 9, 1), ("b", 5, 5), ("c", 1, 9), ("d", 9, 1)))
    second = ANY.values(pairs(("a", 5, 5), ("b", 5, 5), ("c", None, 9)))
    assert first == {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}
    assert differences(first, second, "half_credit").tolist() == [0.5, 0.0]


def test_edit_with_high_score_and_low_truth_counts_as_hacked() -> None:
    def edit(name: str, true: float, score: float | None) -> EditItem:
        truth = TruthItem(score=true, follow=1, keep=0.5, quality=0)
        return EditItem(case_id=name, editor="after", truth=truth, score=score)

    edits = EvaluatedItems(edits=(edit("a", 2, 9), edit("b", 9, 9), edit("c", 2, 3), edit("d", 2, None)))
    assert Measure("e", "hacked", "after").values(edits) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert Measure("e", "keep", "after").values(edits)["a"] == 0.5
    better = Measure("e", "better", "after").values(edits)
    assert differences(better, {"a": 1.0, "b": 10.0, "c": 2.0}, "better").tolist() == [1.0, -1.0, 0.0]


def test_interval_of_one_seed_resamples_items_and_varying_seeds_widen_it() -> None:
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


def test_two_stage_interval_has_its_nominal_coverage() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(100):
        seeds = [rng.normal(shift, 1.0, 60) for shift in rng.normal(0.0, 0.3, 8)]
        found = nested_estimate(seeds, Bootstrap(samples=200))
        inside += found.low <= 0.0 <= found.high
    assert 0.82 < inside / 100 <= 1.0


def test_estimate_without_items_is_refused() -> None:
    for nothing in ([], [np.array([])]):
        with pytest.raises(ValueError, match="every seed needs at least one item"):
            nested_estimate(nothing, Bootstrap())
