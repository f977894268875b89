"""The evaluation artifact contains every edit with its verdicts, so that each metric can be recomputed from it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1 import shapes
from editr1.config.evaluate import EvaluateConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair, ScoreItem, ScoreOutcome
from editr1.evaluation.report import ReportData, render_report
from editr1.serving.engines.base import EngineError, Generation, Sampling
from editr1.serving.scoring import score_items
from editr1.shapes.cases import generate_cases
from editr1.shapes.dataset import decided_pairs
from editr1.shapes.truth import true_score
from editr1.stages import evaluate
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.trace import format_trace
from tests.unit.evaluation import recomputed

PAIRS, CASES = 90, 60
VERIFIER = Path(shapes.__file__).parent / "assets" / "verifier"


class NoisyVerifier:
    """An engine whose answers are random, whose traces are sometimes invalid, and that sometimes fails."""

    model_digest = "sha256:noisy"
    template = PromptTemplate()

    def __init__(self, items: list[ScoreItem], rng: np.random.Generator) -> None:
        self._items, self._rng = items, rng

    def generate(self, chats: Any, sampling: Sampling) -> list[list[Generation] | EngineError]:
        return [self._answer(item, sampling.num_traces) for item in self._items]

    def _answer(self, item: ScoreItem, n: int) -> list[Generation] | EngineError:
        kind = self._rng.random()
        if kind < 0.03:
            return EngineError("out of memory")
        traces = []
        for _ in range(n):
            bits = self._rng.integers(0, 2, len(item.principles)).tolist()
            text = format_trace("because", item.principles, bits, float(self._rng.integers(0, 5)) * 2)
            broken = kind < 0.06 or self._rng.random() < 0.2
            traces.append(Generation(text="no score" if broken else text, prompt_tokens=1, completion_tokens=1))
        return traces


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole stage with two random verifiers and two random editors on the shapes dataset, and return its artifact."""
    work = tmp_path_factory.mktemp("evaluate")
    pairs = [_with_principles(pair) for pair in decided_pairs(PAIRS, 0, "p")]
    write_table(work / "pairs.parquet", pairs, PreferencePair)
    cases = generate_cases(CASES, 0, "t", with_principles=True)
    write_table(work / "cases.parquet", [*cases, *(_again(case, i) for i, case in enumerate(cases[:9]))], EditCase)
    calls = np.random.default_rng(3)

    def scorer(*_: Any) -> Any:
        def score(items: list[ScoreItem]) -> list[ScoreOutcome]:
            return score_items(NoisyVerifier(items, calls), items, Sampling(temperature=1.0, num_traces=4))  # type: ignore[arg-type]

        return score

    def editor(*_: Any) -> Any:
        return lambda sources, _i: [
            Image.fromarray(np.clip(np.asarray(s) + calls.integers(-60, 60), 0, 255).astype(np.uint8)) for s in sources
        ]

    config = EvaluateConfig(
        ground_truth="shapes",
        num_traces=4,
        temperature=1.0,
        max_pairs=PAIRS,
        max_failed_fraction=1.0,
        bootstrap_samples=2000,
    )
    context = SimpleNamespace(
        job=SimpleNamespace(run="r", inputs=dict.fromkeys(("pairs", "cases", "sft", "rl", "before", "after"), "d")),
        settings=lambda _kind: config,
        check_inputs=lambda: None,
        input=lambda _role: str(VERIFIER),  # its tokenizer and context length check the lengths of the prompts
        table=lambda name: work / f"{name}.parquet",
        output_folder=lambda name: (work / name).mkdir() or work / name,
        commit=lambda *_a, **_k: None,
        progress=SimpleNamespace(phase=lambda *_a: None, step=lambda *_a, **_k: None),
        should_stop=lambda: False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_scorer", scorer)
        patch.setattr(evaluate, "_editor", editor)
        evaluate.body(context)  # type: ignore[arg-type]
    return work / "evaluation"


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
