"""The evaluation artifact contains every edit with its verdicts, so that each metric can be recomputed from it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from editr1.config.evaluate import EvaluateConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair
from editr1.evaluation.report import ReportData, render_report
from editr1.shapes.cases import generate_cases
from editr1.shapes.dataset import decided_pairs
from editr1.shapes.truth import true_score
from tests.unit.evaluation import recomputed
from tests.unit.stages.noisy_evaluation import evaluate_noisily

PAIRS, CASES = 90, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole stage with two random verifiers and two random editors on the shapes dataset, and return its artifact."""
    work = tmp_path_factory.mktemp("evaluate")
    pairs = [_with_principles(pair) for pair in decided_pairs(PAIRS, 0, "p")]
    write_table(work / "pairs.parquet", pairs, PreferencePair)
    cases = generate_cases(CASES, 0, "t", with_principles=True)
    write_table(work / "cases.parquet", [*cases, *(_again(case, i) for i, case in enumerate(cases[:9]))], EditCase)
    config = EvaluateConfig(
        ground_truth="shapes",
        num_traces=4,
        temperature=1.0,
        max_pairs=PAIRS,
        max_failed_fraction=1.0,
        bootstrap_samples=2000,
    )
    return evaluate_noisily(work, config, ("sft", "rl", "before", "after"))


def _with_principles(pair: PreferencePair) -> PreferencePair:
    from editr1.shapes.edits import parse_instruction

    principles = tuple(parse_instruction(pair.case.instruction).principles())
    return pair.model_copy(update={"case": pair.case.model_copy(update={"principles": principles})})


def _again(case: EditCase, number: int) -> EditCase:
    return case.model_copy(update={"case_id": f"again-{number}"})


def test_every_metric_equals_the_one_recomputed_from_the_artifact(folder: Path) -> None:
    recomputed.check(folder)


def test_every_figure_of_the_page_equals_the_one_recomputed_from_the_artifact(folder: Path) -> None:
    data = ReportData.model_validate_json((folder / "evaluation.json").read_bytes())
    recomputed.check_page(render_report(data.model_copy(update={"flip_rate": 0.05})), folder)


def test_counts_of_pairs_equal_those_of_the_artifact(folder: Path) -> None:
    data = json.loads((folder / "evaluation.json").read_text())
    items = recomputed.read(folder / "pairs.jsonl")
    for verifier in data["verifiers"]:
        mine = [item for item in items if item["verifier"] == verifier["role"]]
        failed = [i for i in mine if i["label"] != "same" and None in (i["winner"], i["loser"])]
        accuracy = verifier["accuracy"]
        assert accuracy["same"] == sum(item["label"] == "same" for item in mine) > 0
        assert accuracy["failed"] == len(failed) > 0
        assert accuracy["n"] == PAIRS - len(failed)
        scored = [item for item in mine if item["label"] != "same"]
        answers = [item[f"{side}_edit"]["answers"] for item in scored for side in ("winner", "loser")]
        reasons = {answer["failure"].split(":")[0] for answer in answers}
        assert reasons == {"", "engine", "unparsed"}


def test_edits_are_named_by_the_digest_of_their_image(folder: Path) -> None:
    pairs = {pair.pair_id: pair for pair in map(_with_principles, decided_pairs(PAIRS, 0, "p"))}
    for item in recomputed.read(folder / "pairs.jsonl"):
        pair = pairs[item["pair_id"]]
        assert item["case_id"] == pair.case.case_id
        assert item["source"] == hashlib.sha256(pair.case.source.data).hexdigest()
        if item["label"] != "same":
            assert item["winner_edit"]["image"] == hashlib.sha256(pair.winner.image.data).hexdigest()
            assert item["loser_edit"]["image"] == hashlib.sha256(pair.loser.image.data).hexdigest()
    edits = recomputed.read(folder / "edits.jsonl")
    shown = {case["case_id"]: case for case in json.loads((folder / "evaluation.json").read_text())["gallery"]}
    assert len(edits) == 2 * (CASES + 9) and len(shown) == 8
    for item in edits:
        if item["case_id"] in shown:
            image = base64.urlsafe_b64decode(shown[item["case_id"]][item["editor"]]["image"])
            assert item["image"] == hashlib.sha256(image).hexdigest()
        assert (item["answers"] is None) == (item["case_id"] not in shown)


def test_editor_that_does_nothing_has_the_score_of_the_source_images(folder: Path) -> None:
    cases = generate_cases(CASES, 0, "t", with_principles=True)
    scores = [true_score(c.source, c.instruction, c.source).score for c in (*cases, *cases[:9])]
    found = recomputed.stored_estimates(folder)["/editor/unchanged"]
    assert (found["value"], found["n"]) == (pytest.approx(np.mean(scores)), CASES + 9)
