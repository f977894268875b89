"""Every parser of model output, on arbitrary text: it returns or reports a reason, in time linear in the length."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.config.curate import HolisticConfig, PrincipleCounts
from editr1.curation.answers import read_difficulty, read_gold, read_principles, read_ratings
from editr1.curation.select import holistic_verdict
from editr1.curation.think import parse_member_trace
from editr1.data.types import Category, Principle
from editr1.evaluation.judge import parse_imgedit, parse_imgedit_published, parse_viescore
from editr1.llm.answers import UnreadableAnswer
from editr1.verifier.trace import parse_trace

PRINCIPLES = (Principle(question="q", category=Category.FOLLOW),)
TRACE = '[{"question": "q", "score": 1}]\n{"average_score": 1.0}\n<score>8</score>'


def readable_or_reason(read: Callable[[str], object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return read(text)
        except UnreadableAnswer as error:
            str(error).encode()
            return None

    return parse


PARSERS: dict[str, Callable[[str], object]] = {
    "trace": lambda text: parse_trace(text, PRINCIPLES),
    "member": lambda text: parse_member_trace(("m", text), PRINCIPLES),
    "holistic": lambda text: holistic_verdict(text, HolisticConfig()),
    "viescore": parse_viescore,
    "imgedit": parse_imgedit,
    "imgedit published": parse_imgedit_published,
    "principles": readable_or_reason(lambda text: read_principles(text, PrincipleCounts())),
    "gold": readable_or_reason(lambda text: read_gold(text, PRINCIPLES)),
    "difficulty": readable_or_reason(read_difficulty),
    "ratings": readable_or_reason(read_ratings),
}
FRAGMENTS = (
    "[", "{", "]", "}", "[[", '{"a":', '"', "'", "\\", '\\"', "\\'", "\\u", "\\ud800", "\ud800", ":", ": ", ",", "\n", "\r",
    " ", "\t", "\v", "\x1c", "*", "-", "a ", "5", "9" * 50, "²", "٣", "1e999", "NaN", "Infinity", "-1", "0.5", "true", "null",
    "```", "```json\n", "\n```\n", "||V^=^V||", "A: 5\n", "A: ", "<score>", "</score>", "<\\score>", "8.0", '"score": ',
    '"question": "q"', '{"score": [', '{"reasoning": "', '{"gold": [', '{"hard": ', '[{"question": ', '{"average_score": ',
    "[{'score':", "Image Quality", TRACE,
)  # fmt: skip
DEGENERATE = (
    "[" * 20_000, "{" * 20_000, '{"a":' * 20_000, '{"score": ' + "[" * 900 + "]" * 900 + "}", "5" * 4400, "A: " + "5" * 4400,
    "A: " + "5" * 4400 + "\nB: 4\nC: 4", "A: " + "5" * 400 + "\nB: 4", "Area: ²\nA: 4", "A: ٣\nB: 4", "\ud800",
    '{"score": [8, 1e999], "reasoning": "x"}', '{"score": [8, NaN], "reasoning": "x"}', '{"score": [8, ' + "5" * 4400 + "]}",
    '{"score": [8, 8], "reasoning": "\\ud800"}', '{"reasoning": "\\uDFFF", "score": [1, 2]}', '{"reasoning": "\ud800", "score": [1, 2]}',
    '{"score": [8, 8], "reasoning": ' + "[" * 900 + "]" * 900 + "}", '{"gold": [{"question": "q", "gold": ' + "[" * 900 + "]" * 900 + "}]}",
    '[{"question": "\\ud800", "category": "Image Quality"}]', "\ud800" + TRACE, TRACE.replace('"q"', '"\\ud800"'),
    TRACE.replace('"q"', "[" * 900 + "]" * 900), TRACE.replace("1.0", "5" * 4400), TRACE.replace("1.0", "1e999"),
    TRACE.replace("1.0", "NaN"),
    TRACE.replace('"score": 1', '"score": ' + "[" * 900 + "]" * 900), TRACE.replace("8", "9" * 5000),
)  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("number", range(len(DEGENERATE)))
def test_degenerate_text_is_parsed_or_has_a_reason(name: str, number: int) -> None:
    found = PARSERS[name](DEGENERATE[number])
    assert found is None or str(found).encode()


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join))
def test_arbitrary_text_is_parsed_or_has_a_reason(text: str) -> None:
    for parse in PARSERS.values():
        found = parse(text)
        assert found is None or str(found).encode()


CONTEXTS = {
    "bare": ("", ""),
    "string of a trace": ('x [{"question": "', ' {"average_score": 1.0}<score>8</score>'),
    "single-quoted string of a trace": ("x [{'question': '", " {'average_score': 1.0}<score>8</score>"),
    "fence": ("```json\n", "x```"),
    "rating": ("A: 5 ", " x"),
}


def cpu_seconds(parse: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        parse(text)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", PARSERS)
def test_time_is_linear_in_the_length(name: str, context: str) -> None:
    """A time that grows with the square of the length is 64 times as long at 8 times the length."""
    opening, closing = CONTEXTS[context]
    for fragment in FRAGMENTS:
        short, long = (opening + fragment * (length // len(fragment)) + closing for length in (4_000, 32_000))
        assert cpu_seconds(PARSERS[name], long) < 30 * cpu_seconds(PARSERS[name], short) + 0.02, repr(fragment)
