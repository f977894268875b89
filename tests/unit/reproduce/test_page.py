"""The page and the table show the results, and mark what was not measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from editr1.artifacts import open_store
from editr1.config.loader import ConfigError
from editr1.config.reproduce import SMALLEST, Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.items import EditItem, PairItem, TruthItem
from editr1.evaluation.metrics import Bootstrap
from editr1.reproduce.ceiling import Ceiling, ceiling
from editr1.reproduce.claims import make_comparisons
from editr1.reproduce.experiments import make_experiments
from editr1.reproduce.metrics import EvaluatedItems
from editr1.reproduce.page import render_page, render_table
from editr1.reproduce.results import (
    CollectedResults,
    Reproduction,
    ceilings,
    check_existing_results,
    measure_comparison,
    measure_experiment,
)
from editr1.runs.record import RunRecord
from editr1.shapes.dataset import decided_pairs

SEEDS = (7, 8)


def pairs(right: int, role: str = "rl") -> tuple[PairItem, ...]:
    return tuple(PairItem(pair_id=f"p{i}", verifier=role, winner=float(i < right), loser=0.5) for i in range(40))


def edits(gain: float) -> tuple[EditItem, ...]:
    made = []
    for role, more in (("before", 0.0), ("after", gain)):
        for i in range(39):
            truth = TruthItem(score=4 + more + i % 3, follow=0.5, keep=0.5, quality=1.0)
            made.append(EditItem(case_id=f"c{i}", editor=role, truth=truth, score=5.0))
    return tuple(made)


def found() -> Reproduction:
    collected, bootstrap = CollectedResults(), Bootstrap(samples=200)
    for seed in SEEDS:
        collected.ceilings[seed] = Ceiling(np.array([1.0, 1.0, 0.5, 1.0]), np.array([1.0, 1.0, 0.0, 1.0]), list("abcd"))
        collected.evaluated[seed, "tv"] = EvaluatedItems(pairs(20))
        collected.evaluated[seed, "gcpo"] = EvaluatedItems(pairs(34))
        collected.evaluated[seed, "gcpo-shuffled"] = EvaluatedItems(pairs(20))
        collected.evaluated[seed, "editor-rl"] = EvaluatedItems(edits=edits(2.0))
        collected.curves[seed, "gcpo"] = {"gcpo: pair_win_rate": ((1.0, 0.4), (2.0, 0.5 + seed / 100), (3.0, 0.6))}
        collected.seconds[seed, "gcpo"] = 12.0
    experiments = make_experiments(7, SMALLEST)
    return Reproduction(
        seeds=SEEDS,
        budget=SMALLEST,
        command="editr1 reproduce <script>",
        git_revisions=["abc"],
        machines=["2 cores"],
        failed={"s7-v": "stage evaluate: <too many> failures"},
        versions={"torch": "2"},
        seconds=60.0,
        comparisons=[measure_comparison(item, collected, SEEDS, bootstrap) for item in make_comparisons(SMALLEST)],
        experiments=[
            measure_experiment(experiment, collected, SEEDS, bootstrap) for experiment in experiments.values()
        ],
        ceilings=ceilings(collected, SEEDS, bootstrap),
    )


def test_table_shows_measured_claims_and_marks_those_not_measured() -> None:
    table = render_table(found())
    row = next(line for line in table.splitlines() if "GCPO over SFT by at least 5 points" in line)
    value, interval, n, seeds, outcome = [part.strip() for part in row.split("|")][3:8]
    assert (value, n, seeds, outcome) == ("+35.0 points", "80", "2", "holds")
    assert re.fullmatch(r"\+\d\d\.\d to \+\d\d\.\d", interval)
    assert (
        "| 2. GCPO on shuffled labels does not improve on SFT | not reported | +0.0 points | +0.0 to +0.0 | 80 | 2 | holds |"
        in table
    )
    assert "| +2.00 of 10 |" in table
    assert (
        "| 1. verified reasoning (T+V) over bare verdicts (V) | +4.5 points (7B) | not measured |  |  | 0 | not measured |"
        in table
    )


def test_page_shows_means_seeds_verifiers_editors_and_curves_and_escapes_html() -> None:
    page = render_page(found())
    assert "85.0 against 50.0" in page
    assert "7: +35.0<br>8: +35.0" in page
    assert "pairs won" in page
    assert "agrees with the annotators of these pairs on 87.5" in page
    assert "7.00 (" in page  # the editor's mean after RL
    assert "&lt;script&gt;" in page
    assert "s7-v</b> stage evaluate: &lt;too many&gt; failures" in page
    assert "700.0" not in page  # no means are reported for the metric "better"
    assert "<script" not in page
    assert "with one seed" not in page
    # SMALLEST trains for two iterations.
    assert "true score with the RL-RRM by iteration: from 5.00 to 7.00 at iteration 2" in page


def test_seconds_of_an_experiment_are_read_from_its_record(tmp_path: object) -> None:
    store = open_store(StoreConfig(url=f"file://{tmp_path}"))
    record = RunRecord.model_validate(
        {
            "name": "s7-data-v",
            "seed": 7,
            "created": 0.0,
            "stages": {
                "curate": {
                    "name": "curate",
                    "kind": "curate",
                    "key": "k",
                    "attempts": [{"started": 1.0, "ended": 4.0}, {"started": 5.0, "ended": 6.5}],
                },
                "serve": {"name": "serve", "kind": "serve", "key": "k", "attempts": [{"started": 0.0, "ended": 99.0}]},
            },
        }
    )
    collected = CollectedResults()
    collected.add(7, make_experiments(7, SMALLEST)["data-v"], record, store)
    assert collected.seconds == {(7, "data-v"): 4.5}
    assert collected.evaluated == {}


def test_ceilings_match_the_error_rate_of_the_annotators() -> None:
    pairs = list(decided_pairs(400, 3, "pairtest"))
    found = ceiling(pairs, 99)
    assert len(found.truth) == len(found.people) == 400
    assert 0.91 < found.truth.mean() < 0.985  # 5 % of the labels are flipped
    assert 0.86 < found.people.mean() < 0.95  # two sets with 5 % each: 0.905
    assert (ceiling(pairs, 99).people == found.people).all()


def test_results_of_another_budget_or_of_more_seeds_are_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "reproduction.json"
    check_existing_results(file, Budget(), [7])
    file.write_text(found().model_dump_json())
    budget = found().budget
    check_existing_results(file, budget, SEEDS)
    check_existing_results(file, budget, [*SEEDS, 9])
    with pytest.raises(ConfigError, match="results for seed 8, which would be lost"):
        check_existing_results(file, budget, [7])
    with pytest.raises(ConfigError, match="contains results for a different budget, which would be overwritten"):
        check_existing_results(file, budget.model_copy(update={"iterations": 999}), SEEDS)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="delete the file"):
        check_existing_results(file, budget, SEEDS)


def test_page_describes_tuning_and_marks_a_result_on_a_development_seed() -> None:
    fresh = found()
    page, table = render_page(fresh), render_table(fresh)
    assert "docs/reproduction.md describes them" in page and "GCPO: tie credit" in page
    assert "not a result." not in page.split("Settings were tuned")[0] and "Not a result" not in table
    tuned_on = fresh.model_copy(update={"seeds": (601, 1001)})
    assert "Settings were chosen on seed 601: this page is not a result." in render_page(tuned_on)
    assert "For tuning only, not a result: the settings were selected on seed 601." in render_table(tuned_on)
