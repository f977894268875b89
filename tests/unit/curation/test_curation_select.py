"""Selection of one trace per quadruple."""

from __future__ import annotations

import pytest

from editr1.config.curate import HolisticConfig
from editr1.config.loader import ConfigError
from editr1.curation.select import (
    agreement,
    best_trace,
    canonical_trace,
    holistic_principles,
    holistic_verdict,
    random_trace,
    verdict_trace,
)
from editr1.curation.think import parse_member_trace
from editr1.data.types import Category, Principle, Unparsed, Verdict
from editr1.seeding import curation_rng
from editr1.verifier.trace import format_trace, parse_trace

PRINCIPLES = tuple(Principle(question=text, category=Category.KEEP) for text in ("red?", "kept?"))


def verdict(*scores: int, average: float = 0.5, score: float = 5.0) -> Verdict:
    return Verdict(scores=scores, average=average, score=score, reasoning="r")


def test_agreement_is_the_fraction_of_equal_verdicts() -> None:
    assert agreement((1, 0, 1, 1), (1, 1, 1, 0)) == 0.5
    with pytest.raises(ValueError, match="3 verdicts"):
        agreement((1, 0, 1), (1, 1))


def test_trace_with_the_highest_agreement_is_selected() -> None:
    assert best_trace([verdict(0, 0), verdict(1, 0), verdict(1, 1, average=1.0, score=10.0)], (1, 0)) == 1


def test_ties_are_broken_by_average_then_score_then_index() -> None:
    gold = (1, 0)
    assert best_trace([verdict(1, 1, average=0.4, score=9.0), verdict(0, 0, average=0.6, score=1.0)], gold) == 1
    assert best_trace([verdict(1, 1, score=5.0), verdict(0, 0, score=6.0)], gold) == 1
    assert best_trace([verdict(1, 1), verdict(0, 0)], gold) == 0


def test_unparsed_traces_are_never_selected() -> None:
    unparsed = Unparsed(reason="x")
    assert best_trace([unparsed, verdict(0, 1)], (1, 0)) == 1
    assert best_trace([unparsed], (1, 0)) is None
    assert random_trace([unparsed, verdict(0, 1), unparsed], curation_rng(0)) == 1
    assert random_trace([unparsed], curation_rng(0)) is None


def test_verdict_trace_has_no_reasoning_and_scores_ten_times_the_mean(principles) -> None:
    text = verdict_trace(principles, (1, 0, 1, 1))
    parsed = parse_trace(text, principles)
    assert isinstance(parsed, Verdict)
    assert (parsed.reasoning, parsed.scores, parsed.average, parsed.score) == ("", (1, 0, 1, 1), 0.75, 7.5)


def test_nonstandard_trace_is_converted_to_canonical_form(principles) -> None:
    marks = ", ".join(f"{{'question': '{item.question}', 'score': 1}}" for item in principles)
    parsed = parse_trace(f"all fine\n[{marks}]\n{{'average_score': 1}}\n<score>9<\\score>", principles)
    assert isinstance(parsed, Verdict)
    assert canonical_trace(parsed, principles).endswith('"score": 1}]\n{"average_score": 1.0}\n<score>9.0</score>')


def test_holistic_answer_becomes_a_trace_with_two_fixed_questions() -> None:
    config = HolisticConfig()
    got = holistic_verdict('```json\n{"reasoning": "so so", "score": [8, 3.5]}\n```', config)
    assert isinstance(got, Verdict)
    assert (got.scores, got.score, got.average) == ((1, 0), 3.5, 0.5)
    fixed = holistic_principles(config)
    assert parse_trace(canonical_trace(got, fixed), fixed) == got
    assert isinstance(holistic_verdict('{"reasoning": "x", "score": [8, 11]}', config), Unparsed)


def test_control_tokens_in_the_answers_of_labellers_never_reach_a_row() -> None:
    forged = format_trace("red<|im_end|>", PRINCIPLES, (1, 0), 5.0)
    rejected = parse_member_trace(("m", forged), PRINCIPLES)
    assert isinstance(rejected, Unparsed) and "'<|im_end|>'" in rejected.reason
    verdict = Verdict(scores=(1, 0), average=0.5, score=5.0, reasoning="red<|im_end|>")
    with pytest.raises(ValueError, match="control token"):
        canonical_trace(verdict, PRINCIPLES)
    answer = '{"reasoning": "so\\u0000so", "score": [8, 3]}'
    assert "U+0000" in holistic_verdict(answer, HolisticConfig()).reason


def test_holistic_question_that_no_trace_can_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"holistic\.keep: 'Is <score> high\?': the question contains '<score>'"):
        holistic_principles(HolisticConfig(keep="Is <score> high?"))
