"""The page and the table say what was found, and of what was not measured that it was not."""

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
from editr1.reproduce.claims import make_contrasts
from editr1.reproduce.experiments import make_cells
from editr1.reproduce.measures import Evaluated
from editr1.reproduce.page import render_page, render_table
from editr1.reproduce.results import Collected, Reproduction, ceilings, check_kept, describe, judge
from editr1.runs.record import RunRecord
from editr1.shapes.dataset import decided

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
    collected, bootstrap = Collected(), Bootstrap(samples=200)
    for seed in SEEDS:
        collected.ceilings[seed] = Ceiling(np.array([1.0, 1.0, 0.5, 1.0]), np.array([1.0, 1.0, 0.0, 1.0]))
        collected.evaluated[seed, "tv"] = Evaluated(pairs(20))
        collected.evaluated[seed, "gcpo"] = Evaluated(pairs(34))
        collected.evaluated[seed, "gcpo-shuffled"] = Evaluated(pairs(20))
        collected.evaluated[seed, "editor-rl"] = Evaluated(edits=edits(2.0))
        collected.curves[seed, "gcpo"] = {"gcpo: pair_win_rate": ((1.0, 0.4), (2.0, 0.5 + seed / 100), (3.0, 0.6))}
        collected.seconds[seed, "gcpo"] = 12.0
    cells = make_cells(7, SMALLEST)
    return Reproduction(
        seeds=SEEDS,
        budget=SMALLEST,
        command="editr1 reproduce <script>",
        git_revisions=["abc"],
        machines=["2 cores"],
        failed={"s7-v": "stage evaluate: <too many> failures"},
        versions={"torch": "2"},
        seconds=60.0,
        contrasts=[judge(item, collected, SEEDS, bootstrap) for item in make_contrasts(SMALLEST)],
        cells=[describe(cell, collected, SEEDS, bootstrap) for cell in cells.values()],
        ceilings=ceilings(collected, SEEDS, bootstrap),
    )


def test_a_claim_is_said_to_hold_with_its_figures_and_one_that_was_not_measured_is_not() -> None:
    table = render_table(found())
    row = next(line for line in table.splitlines() if "GCPO over SFT by 5 points or more, ties count half" in line)
    value, interval, n, seeds, outcome = [part.strip() for part in row.split("|")][3:8]
    assert (value, n, seeds, outcome) == ("+35.0 points", "80", "2", "holds")
    assert re.fullmatch(r"\+\d\d\.\d to \+\d\d\.\d", interval)
    assert (
        "| 2. GCPO on shuffled labels gains nothing | no figure | +0.0 points | +0.0 to +0.0 | 80 | 2 | holds |"
        in table
    )
    assert "| +2.00 of 10 |" in table
    assert "| 1. T+V over V | +4.5 points (7B) | not measured |  |  | 0 | not measured |" in table


def test_the_page_shows_levels_seeds_verifiers_editors_and_curves_and_escapes_what_it_is_given() -> None:
    page = render_page(found())
    assert "85.0 against 50.0" in page
    assert "7: +35.0<br>8: +35.0" in page
    assert "pairs won" in page
    assert "agrees with the people of these pairs on 87.5" in page
    assert "7.00 (" in page  # the editor's mean after RL
    assert "&lt;script&gt;" in page
    assert "s7-v</b> stage evaluate: &lt;too many&gt; failures" in page
    assert "700.0" not in page  # levels of a sign are none
    assert "<script" not in page
    assert "with one seed" not in page
    assert "true score on the RL-RRM by iteration: from 5.00 to 7.00 at 2" in page  # SMALLEST trains for two iterations


def test_a_cell_s_seconds_and_curves_are_read_from_its_record(tmp_path: object) -> None:
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
    collected = Collected()
    collected.add(7, make_cells(7, SMALLEST)["data-v"], record, store)
    assert collected.seconds == {(7, "data-v"): 4.5}
    assert collected.evaluated == {}


def test_the_truth_and_other_people_agree_with_people_as_often_as_their_errors_allow() -> None:
    pairs = list(decided(400, 3, "pairtest"))
    found = ceiling(pairs, 99)
    assert len(found.truth) == len(found.people) == 400
    assert 0.91 < found.truth.mean() < 0.985  # 5 % flips
    assert 0.86 < found.people.mean() < 0.95  # two sets of 5 %: .905
    assert (ceiling(pairs, 99).people == found.people).all()


def test_figures_of_other_sizes_or_of_more_seeds_are_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "reproduction.json"
    check_kept(file, Budget(), [7])
    file.write_text(found().model_dump_json())
    sizes = found().budget
    check_kept(file, sizes, SEEDS)
    check_kept(file, sizes, [*SEEDS, 9])
    with pytest.raises(ConfigError, match="seeds that this call leaves out, 8 for one"):
        check_kept(file, sizes, [7])
    with pytest.raises(ConfigError, match="figures of other sizes; they would be lost"):
        check_kept(file, sizes.model_copy(update={"iterations": 999}), SEEDS)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="delete the file"):
        check_kept(file, sizes, SEEDS)


def test_the_page_says_how_settings_were_chosen_and_that_a_seed_they_were_chosen_on_is_no_result() -> None:
    fresh = found()
    page, table = render_page(fresh), render_table(fresh)
    assert "docs/reproduction.md says which" in page and "what a tie earns" in page
    assert "no result." not in page.split("On development seeds")[0] and "No result" not in table
    looked_at = fresh.model_copy(update={"seeds": (601, 1001)})
    assert "Settings were chosen on seed 601: this page shows no result." in render_page(looked_at)
    assert "No result: settings were chosen on seed 601." in render_table(looked_at)
