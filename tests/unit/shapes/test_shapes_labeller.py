"""The labelling models of the shapes dataset and their systematic errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from editr1.config.shapes import LabellerSettings, MemberSettings
from editr1.data.types import Candidate, EditCase, Verdict
from editr1.shapes.candidates import make_candidate, make_candidates
from editr1.shapes.cases import generate_cases
from editr1.shapes.labeller import ShapesLabeller
from editr1.shapes.labeller_server import labeller_server
from editr1.shapes.truth import true_score
from editr1.verifier.trace import parse_trace

CASES = generate_cases(60, 0, with_principles=True)
ACCURATE = LabellerSettings(
    members={"accurate": MemberSettings(leniency=0, flip_rate=0, noise=0, follow_only_weight=0)}, gold_flip_rate=0
)


def _questions(case: EditCase) -> list[str]:
    return [item.question for item in case.principles]


def _candidates(kind: str) -> list[tuple[EditCase, Candidate]]:
    made = [(case, make_candidate(case, kind)) for case in CASES]
    return [(case, item) for case, item in made if item is not None]


def _verdict(labeller: ShapesLabeller, case: EditCase, item: Candidate, **options: object) -> Verdict:
    text = labeller.think(case.source, item.image, case.instruction, _questions(case), **options)  # type: ignore[arg-type]
    verdict = parse_trace(text, case.principles)
    assert isinstance(verdict, Verdict)
    return verdict


def test_accurate_member_writes_the_true_verdicts() -> None:
    labeller = ShapesLabeller(ACCURATE)
    for case in CASES[:30]:
        for item in make_candidates(case, 0, 3):
            truth = true_score(case.source, case.instruction, item.image)
            verdict = _verdict(labeller, case, item)
            assert verdict.scores == truth.verdicts
            assert verdict.score == round(truth.score * 2) / 2


def test_lenient_members_miss_follow_and_keep_faults_at_their_configured_rate() -> None:
    def missed(model: str, kind: str) -> float:
        bits = [
            verdict_bit
            for seed in range(4)
            for case, item in _candidates(kind)
            for verdict_bit, truth in zip(
                _verdict(ShapesLabeller(LabellerSettings()), case, item, model=model, seed=seed).scores,
                true_score(case.source, case.instruction, item.image).verdicts,
                strict=True,
            )
            if truth == 0
        ]
        return sum(bits) / len(bits)

    # A fault is accepted with probability l, and the verdict is then flipped with probability 0.1: 0.9 l + 0.1 (1 - l).
    assert missed("careful", "lost") == pytest.approx(0.26, abs=0.09)
    assert missed("lenient-a", "lost") == pytest.approx(0.66, abs=0.09)
    assert missed("lenient-b", "no_edit") == pytest.approx(0.66, abs=0.09)
    assert missed("lenient-c", "noise") == pytest.approx(0.10, abs=0.07)


def test_wrong_verdict_has_a_matching_wrong_observation() -> None:
    for case, item in _candidates("lost")[:20]:
        verdict = _verdict(ShapesLabeller(), case, item, model="lenient-a")
        lines = verdict.reasoning.splitlines()
        assert len(lines) == len(case.principles)
        for line, bit in zip(lines, verdict.scores, strict=True):
            assert line.endswith(", yes;" if bit else ", no;")
            if " -> " in line:
                expected, seen = line.split(", ")[0].split(" want " if " want " in line else " had ")[1].split(" -> ")
                assert (expected == seen) == bool(bit)


def test_answers_depend_only_on_seed_and_content() -> None:
    case, item = _candidates("lost")[0]
    first, second = (_verdict(ShapesLabeller(), case, item, model="lenient-a", seed=5) for _ in range(2))
    assert first == second
    texts = {str(_verdict(ShapesLabeller(), case, item, model="lenient-a", seed=seed)) for seed in range(20)}
    assert len(texts) > 5
    assert ShapesLabeller().member("some-vlm", "be strict") == ShapesLabeller().member("some-vlm", "be strict")


def test_four_percent_of_the_gold_answers_are_wrong() -> None:
    wrong = total = 0
    for case in CASES:
        for item in make_candidates(case, 1, 4):
            answer = json.loads(ShapesLabeller().verify(case.source, item.image, case.instruction, _questions(case)))[
                "gold"
            ]
            assert [entry["question"] for entry in answer] == _questions(case)
            truth = true_score(case.source, case.instruction, item.image).verdicts
            wrong += sum(entry["gold"] != bit for entry, bit in zip(answer, truth, strict=True))
            total += len(truth)
    assert 0.025 < wrong / total < 0.055


def test_principles_and_difficulty_are_derived_from_the_instruction() -> None:
    case, item = _candidates("perfect")[0]
    labeller = ShapesLabeller(ACCURATE)
    written = json.loads(labeller.decompose(case.instruction))
    assert written == [{"question": item.question, "category": item.category.value} for item in case.principles]
    assert json.loads(labeller.difficulty("move the top-left red square to the top-right"))["hard"] is True
    assert json.loads(labeller.difficulty("remove the top-left red square"))["hard"] is False
    holistic = json.loads(labeller.holistic(case.source, item.image, case.instruction))
    assert holistic["score"] == [10.0, 10.0]


def test_unknown_questions_are_answered_no() -> None:
    case, item = _candidates("perfect")[0]
    text = ShapesLabeller(ACCURATE).think(case.source, item.image, case.instruction, ["is the dog brown?"])
    assert '"score": 0}' in text


def test_server_does_not_import_a_folder_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orjson").mkdir()
    (tmp_path / "orjson" / "__init__.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    with labeller_server() as url:
        assert url.startswith("http://127.0.0.1:")


def test_server_ends_with_the_process_that_started_it() -> None:
    code = (
        "import time\nfrom editr1.shapes.labeller_server import labeller_server\n"
        "with labeller_server() as url:\n    print(url, flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        port = urlsplit(starter.stdout.readline().strip()).port
        os.kill(starter.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port or 0), timeout=5).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < end, "the server still listens"
        time.sleep(0.05)
