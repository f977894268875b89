from __future__ import annotations

import json

import pytest

from editr1.config.shapes import MemberSettings, OracleSettings
from editr1.data.types import Candidate, EditCase, Verdict
from editr1.shapes.candidates import make_candidate, make_candidates
from editr1.shapes.cases import draw_cases
from editr1.shapes.oracle import Oracle
from editr1.shapes.truth import true_score
from editr1.verifier.trace import parse_trace

CASES = draw_cases(60, 0, with_principles=True)
HONEST = OracleSettings(members={"honest": MemberSettings(leniency=0, flips=0, noise=0, follow_only=0)}, gold_flips=0)


def _questions(case: EditCase) -> list[str]:
    return [item.question for item in case.principles]


def _quads(kind: str) -> list[tuple[EditCase, Candidate]]:
    made = [(case, make_candidate(case, kind)) for case in CASES]
    return [(case, item) for case, item in made if item is not None]


def _verdict(oracle: Oracle, case: EditCase, item: Candidate, **options: object) -> Verdict:
    text = oracle.think(case.source, item.image, case.instruction, _questions(case), **options)  # type: ignore[arg-type]
    verdict = parse_trace(text, case.principles)
    assert isinstance(verdict, Verdict)
    return verdict


def test_a_member_without_faults_writes_the_truth() -> None:
    oracle = Oracle(HONEST)
    for case in CASES[:30]:
        for item in make_candidates(case, 0, 3):
            truth = true_score(case.source, case.instruction, item.image)
            verdict = _verdict(oracle, case, item)
            assert verdict.scores == truth.verdicts
            assert verdict.score == round(truth.score * 2) / 2


def test_lenient_members_miss_faults_of_follow_and_keep_at_their_rate_and_not_those_of_quality() -> None:
    def missed(model: str, kind: str) -> float:
        bits = [
            verdict_bit
            for seed in range(4)
            for case, item in _quads(kind)
            for verdict_bit, truth in zip(
                _verdict(Oracle(OracleSettings()), case, item, model=model, seed=seed).scores,
                true_score(case.source, case.instruction, item.image).verdicts,
                strict=True,
            )
            if truth == 0
        ]
        return sum(bits) / len(bits)

    # called fine with probability l, then flipped with .1: l x .9 + (1 - l) x .1
    assert missed("careful", "lost") == pytest.approx(0.26, abs=0.09)
    assert missed("lenient-a", "lost") == pytest.approx(0.66, abs=0.09)
    assert missed("lenient-b", "no_edit") == pytest.approx(0.66, abs=0.09)
    assert missed("lenient-c", "noise") == pytest.approx(0.10, abs=0.07)


def test_a_wrong_verdict_comes_with_a_wrong_reading() -> None:
    for case, item in _quads("lost")[:20]:
        verdict = _verdict(Oracle(), case, item, model="lenient-a")
        lines = verdict.reasoning.splitlines()
        assert len(lines) == len(case.principles)
        for line, bit in zip(lines, verdict.scores, strict=True):
            assert line.endswith(", yes;" if bit else ", no;")
            if " -> " in line:
                expected, seen = line.split(", ")[0].split(" want " if " want " in line else " had ")[1].split(" -> ")
                assert (expected == seen) == bool(bit)


def test_answers_depend_on_seed_and_content_alone() -> None:
    case, item = _quads("lost")[0]
    first, second = (_verdict(Oracle(), case, item, model="lenient-a", seed=5) for _ in range(2))
    assert first == second
    texts = {str(_verdict(Oracle(), case, item, model="lenient-a", seed=seed)) for seed in range(20)}
    assert len(texts) > 5
    assert Oracle().member("some-vlm", "be strict") == Oracle().member("some-vlm", "be strict")


def test_gold_is_the_truth_but_for_four_per_cent() -> None:
    wrong = total = 0
    for case in CASES:
        for item in make_candidates(case, 1, 4):
            answer = json.loads(Oracle().verify(case.source, item.image, case.instruction, _questions(case)))["gold"]
            assert [entry["question"] for entry in answer] == _questions(case)
            truth = true_score(case.source, case.instruction, item.image).verdicts
            wrong += sum(entry["gold"] != bit for entry, bit in zip(answer, truth, strict=True))
            total += len(truth)
    assert 0.025 < wrong / total < 0.055


def test_the_task_is_told_from_the_prompt() -> None:
    case, item = _quads("perfect")[0]
    oracle = Oracle(HONEST)
    asked = f"Instruction: {case.instruction}\n" + "\n".join(_questions(case))
    both = [case.source, item.image]
    assert isinstance(parse_trace(oracle.answer(asked, both), case.principles), Verdict)
    assert all(entry["gold"] for entry in json.loads(oracle.answer(asked + ' as {"gold": []}', both))["gold"])
    written = json.loads(oracle.answer(f"Instruction: {case.instruction}", both[:1]))
    assert written == [{"question": item.question, "category": item.category.value} for item in case.principles]
    assert "hard" in json.loads(oracle.answer(f'Instruction: {case.instruction} answer {{"hard": true}}', both[:1]))
    assert json.loads(oracle.answer(f"Instruction: {case.instruction}", both))["score"] == [10.0, 10.0]


def test_questions_out_of_the_world_are_answered_no() -> None:
    case, item = _quads("perfect")[0]
    text = Oracle(HONEST).think(case.source, item.image, case.instruction, ["is the dog brown?"])
    assert '"score": 0}' in text
