"""The trace format: what the parser accepts, and the reasons for which it rejects a trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.data.types import Category, Principle, Unparsed, Verdict
from editr1.verifier.trace import format_average, format_score, format_trace, parse_trace

PRINCIPLES = (
    Principle(question="is it red?", category=Category.FOLLOW),
    Principle(question='does "it" hold?', category=Category.KEEP),
)
ARRAY = '[{"question": "is it red?", "score": 1}, {"question": "does \\"it\\" hold?", "score": 0}]'
AVERAGE = '{"average_score": 0.5}'
GOOD = f"I look.\n{ARRAY}\n{AVERAGE}\n<score>7.5</score>"


def reason(text: str) -> str:
    found = parse_trace(text, PRINCIPLES)
    assert isinstance(found, Unparsed), found
    return found.reason


def test_canonical_form_round_trips() -> None:
    assert format_trace("I look.", PRINCIPLES, [1, 0], 7.5) == GOOD
    assert parse_trace(GOOD, PRINCIPLES) == Verdict(scores=(1, 0), average=0.5, score=7.5, reasoning="I look.")


def test_single_quotes_and_a_backslash_closing_tag_are_accepted() -> None:
    array = "[{'question': 'is it red?', 'score': 1}, {'question': 'does \"it\" hold?', 'score': 0}]"
    loose = f"I look.\n{array}\n{{'average_score': 0.5}}\n<score>7.5<\\score>"
    assert parse_trace(loose, PRINCIPLES) == parse_trace(GOOD, PRINCIPLES)
    mixed = GOOD.replace('"is it red?"', "'is it red?'")
    assert parse_trace(mixed, PRINCIPLES) == parse_trace(GOOD, PRINCIPLES)


def test_escaped_apostrophe_in_single_quotes_is_accepted() -> None:
    principles = (Principle(question="isn't it?", category=Category.KEEP),)
    text = "x [{'question': 'isn\\'t it?', 'score': 1}] {'average_score': 1} <score>9</score>"
    assert parse_trace(text, principles) == Verdict(scores=(1,), average=1.0, score=9.0, reasoning="x")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no <score> tag"),
        ("free text", "no <score> tag"),
        (GOOD.replace("<score>7.5</score>", "<score>7.5"), "not closed"),
        (GOOD.replace("</score>", "</Score>"), "not closed"),
        (GOOD + "<score>7.5</score>", "more than one score"),
        (f"<score>1</score> {GOOD}", "more than one score"),
        (GOOD + " thanks", "text after the score: thanks"),
        (GOOD.replace("7.5", "seven"), "not a number: seven"),
        (GOOD.replace("7.5", "7/10"), "not a number"),
        (GOOD.replace("7.5", "nan"), "not a number"),
        (GOOD.replace("7.5", ""), "not a number"),
        (GOOD.replace("7.5", "10.5"), "outside [0, 10]"),
        (GOOD.replace("7.5", "-1"), "outside [0, 10]"),
        (GOOD.replace(AVERAGE, ""), "no average_score"),
        (GOOD.replace(AVERAGE, AVERAGE + AVERAGE), "more than one average_score"),
        (GOOD.replace(AVERAGE, '{"average_score": 1.5}'), "1.5 is outside [0, 1]"),
        (GOOD.replace(AVERAGE, '{"average_score": -0.1}'), "outside [0, 1]"),
        (GOOD.replace(AVERAGE, '{"average_score": 1e999}'), "outside [0, 1]"),
        (GOOD.replace(AVERAGE, '{"average_score": "0.5"}'), "average_score is not a number"),
        (GOOD.replace(AVERAGE, '{"average_score": true}'), "average_score is not a number"),
        (GOOD.replace(AVERAGE, '{"average_score": NaN}'), "NaN is not a valid number"),
        (GOOD.replace(AVERAGE, '{"average_score": 0.5, "n": 2}'), "must have only the key average_score"),
        (GOOD.replace(AVERAGE, AVERAGE + " so"), "not valid JSON"),
        (GOOD.replace(ARRAY, ""), "no array"),
        (GOOD.replace(ARRAY, "[]"), "no array"),
        (GOOD.replace(ARRAY, ARRAY + ARRAY), "more than one array"),
        (GOOD.replace(ARRAY, ARRAY + " and"), "not valid JSON"),
        (GOOD.replace(ARRAY, ARRAY[:-1]), "not valid JSON"),
        (GOOD.replace("is it red?", "is it blue?"), "answer 1 is for a different question: is it blue?"),
        (GOOD.replace(ARRAY, '[{"question": "is it red?", "score": 1}]'), "expected 2 answers, found 1"),
        (GOOD.replace('"score": 1', '"score": 2'), "the score of answer 1 is neither 0 nor 1: 2"),
        (GOOD.replace('"score": 1', '"score": 0.5'), "neither 0 nor 1"),
        (GOOD.replace('"score": 1', '"score": 1.0'), "neither 0 nor 1"),
        (GOOD.replace('"score": 1', '"score": true'), "neither 0 nor 1"),
        (GOOD.replace('"score": 1', '"score": "1"'), "neither 0 nor 1"),
        (
            GOOD.replace('"score": 1', '"score": 1, "note": ""'),
            "answer 1 is not an object with exactly the keys question and score",
        ),
        (GOOD.replace('"score": 1', '"score": 1, "score": 0'), "duplicate key"),
        (GOOD.replace('"score": 1', '"score": __import__("os")'), "not valid JSON"),
        ("[" * 100_000 + GOOD.replace(ARRAY, '[{"question": ' + "[" * 100_000), "not valid JSON"),
    ],
)
def test_malformed_trace_is_rejected_with_a_reason(text: str, why: str) -> None:
    assert why in reason(text)


def test_questions_in_another_order_are_rejected() -> None:
    first, second = ARRAY[1:-1].split("}, {")
    assert "a different question" in reason(GOOD.replace(ARRAY, f"[{{{second}, {first}}}]"))


def test_average_that_contradicts_the_answers_is_replaced_with_their_mean() -> None:
    found = parse_trace(GOOD.replace("0.5", "0.9"), PRINCIPLES)
    assert isinstance(found, Verdict)
    assert found.average == 0.5


@pytest.mark.parametrize(("bits", "written"), [((1, 1, 0), 0.7), ((1, 1, 0), 0.667), ((1, 1, 1, 1, 1, 0), 0.8)])
def test_rounded_average_is_kept(bits: tuple[int, ...], written: float) -> None:
    principles = [Principle(question=f"q{index}?", category=Category.QUALITY) for index in range(len(bits))]
    text = format_trace("r", principles, bits, 5.0).rpartition('{"average_score"')[0]
    found = parse_trace(f'{text}{{"average_score": {written}}}\n<score>5.0</score>', principles)
    assert isinstance(found, Verdict)
    assert found.average == written


@pytest.mark.parametrize(("value", "spelling"), [(1, "1.0"), (0, "0.0"), (5 / 6, "0.83"), (0.5, "0.5"), (0.6, "0.6")])
def test_average_has_one_or_two_decimals(value: float, spelling: str) -> None:
    assert format_average(value) == spelling


@pytest.mark.parametrize(
    ("reasoning", "scores", "score"),
    [("x", [1], 5.0), ("x", [1, 2], 5.0), ("x", [1, 0], 11.0), ("<score>1</score>", [1, 0], 5.0), (ARRAY, [1, 0], 5.0)],
)
def test_trace_that_would_not_parse_is_not_written(reasoning: str, scores: list[int], score: float) -> None:
    with pytest.raises(ValueError, match="trace"):
        format_trace(reasoning, PRINCIPLES, scores, score)


question_lists = st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=12)


@given(question_lists, st.data())
def test_every_formatted_trace_parses_to_its_arguments(questions: list[str], data: st.DataObject) -> None:
    principles = [Principle(question=question, category=Category.FOLLOW) for question in questions]
    bits = data.draw(st.lists(st.integers(0, 1), min_size=len(questions), max_size=len(questions)))
    score = data.draw(st.integers(0, 100)) / 10
    reasoning = data.draw(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<[{")))
    try:
        text = format_trace(reasoning, principles, bits, score)
    except ValueError:
        # Only questions that contain parts of the trace format may be rejected.
        assert any(part in question for question in questions for part in ("score", "question"))
        return
    assert parse_trace(text, principles) == Verdict(
        scores=tuple(bits),
        average=float(format_average(sum(bits) / len(bits))),
        score=score,
        reasoning=reasoning.strip(),
    )


pieces = st.sampled_from(
    ["<score>", "</score>", "<\\score>", "[", "]", "{", "}", '"question"', "'score'", '"average_score"', ": ", ", ", "1", "0.5",
     "7.5", '"', "'", "\\", "\n", "is it red?", ARRAY, AVERAGE, "<score>7.5</score>", "nan", "1e400", "9" * 5000]
)  # fmt: skip


@given(
    st.one_of(st.text(), st.lists(pieces).map("".join), st.lists(st.one_of(pieces, st.text(max_size=3))).map("".join))
)
def test_parser_never_raises(text: str) -> None:
    assert isinstance(parse_trace(text, PRINCIPLES), Verdict | Unparsed)


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.text(max_size=4))
def test_damaged_trace_yields_a_valid_verdict_or_a_reason(start: int, end: int, middle: str) -> None:
    found = parse_trace(GOOD[:start] + middle + GOOD[end:], PRINCIPLES)
    if isinstance(found, Verdict):
        assert len(found.scores) == 2
        assert set(found.scores) <= {0, 1}
        assert 0 <= found.average <= 1
        assert 0 <= found.score <= 10
    else:
        assert found.reason


@pytest.mark.parametrize(
    ("score", "text"),
    [(7.25, "7.25"), (8.333333, "8.33"), (9, "9.0"), (7.5, "7.5"), (0.04, "0.04"), (10, "10.0"), (0, "0.0")],
)
def test_scores_keep_two_decimals(score: float, text: str) -> None:
    assert format_score(score) == text
    trace = format_trace("", PRINCIPLES, [1, 0], score)
    parsed = parse_trace(trace, PRINCIPLES)
    assert isinstance(parsed, Verdict) and parsed.score == float(text)
