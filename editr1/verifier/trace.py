r"""The format of a verifier's trace: reasoning, one 0/1 score per question, their average, and the final score.

The format follows arXiv 2604.27505 (section 3.1 and the prompts in the appendix)::

    <reasoning>
    [{"question": "Q1", "score": 1}, {"question": "Q2", "score": 0}]
    {"average_score": 0.5}
    <score>7.5</score>

Two deviations that real models produce are accepted: strings in the array and the object may have single quotes, and
the final tag may be closed by ``<\score>``. Nothing else is accepted: a trace in any other format has no score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from editr1.data.types import Principle, Unparsed, Verdict
from editr1.terminal.text import is_utf8

_OPENING: Final = "<score>"
_CLOSING: Final = re.compile(r"</score>|<\\score>")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,6}(?:\.[0-9]{1,9})?")
_ARRAY: Final = re.compile(r"""\[\s*\{\s*["'](?:question|score)["']\s*:""")
_AVERAGE: Final = re.compile(r"""\{\s*["']average_score["']\s*:""")
_STRING: Final = re.compile(
    r""""[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|'([^'\\]*(?:\\.[^'\\]*)*)'|'[^'\\]*(?:\\.[^'\\]*)*\\?\Z""", re.DOTALL
)
"""A string in double quotes, or in single quotes (group 1). A string that is not closed extends to the end of the text.

Otherwise, the search would restart at every further quotation mark, and its time would be quadratic in the length of
the text.
"""
_ROUNDING: Final = 0.05 + 1e-9
"""Largest difference between an average and the same average rounded to one decimal."""
_ESCAPE: Final = re.compile(r"""\\(.)|(")""", re.DOTALL)


class _Invalid(ValueError):
    """Raised for a trace that violates the format. The message becomes the reason of an :class:`Unparsed`."""


def parse_trace(text: str, principles: Sequence[Principle]) -> Verdict | Unparsed:
    r"""Parse a trace strictly, in time that is linear in its length. Malformed text does not raise an exception.

    A valid trace has the format described in this module. It answers exactly the questions of ``principles``, in their order,
    each with the integer 0 or 1. Its average is in [0, 1] and its score in [0, 10]. White space between the parts is ignored.

    Returns:
        A :class:`Verdict` if the trace is valid. If the average in the trace contradicts its answers, the verdict has the
        mean of the answers instead: models calculate badly, and the average is not the score. Otherwise an
        :class:`Unparsed` with the first violation as its reason. The parts are checked from the end of the text.
    """
    if not is_utf8(text):
        return Unparsed(reason="the trace contains a lone surrogate, which is not valid Unicode")
    try:
        body, score = _split_score(text)
        body, average = _split_average(body)
        reasoning, answers = _split_array(body)
        bits = _answer_bits(answers, principles)
        return Verdict(
            scores=bits, average=_consistent_average(average, bits), score=score, reasoning=reasoning.strip()
        )
    except _Invalid as error:
        return Unparsed(reason=str(error))
    except RecursionError:
        return Unparsed(reason="the array or the object of the trace is nested too deeply")


def format_trace(
    reasoning: str, principles: Sequence[Principle], scores: Sequence[int], score: float, average: float | None = None
) -> str:
    """Format a trace in its canonical form, which :func:`parse_trace` accepts.

    Args:
        reasoning: free text; must not contain any other part of a trace.
        principles: the yes/no questions.
        scores: answers to the questions: ``scores[i]`` in {0, 1} answers ``principles[i]``.
        score: final score in [0, 10], written with one or two decimals.
        average: average in [0, 1], written with one or two decimals; by default the mean of ``scores``.

    Raises:
        ValueError: :func:`parse_trace` would not accept the result.
    """
    if average is None:
        average = sum(scores) / len(scores) if len(scores) else 0.0
    answers = ", ".join(
        f'{{"question": {json.dumps(principle.question, ensure_ascii=False)}, "score": {int(bit)}}}'
        for principle, bit in zip(principles, scores, strict=False)
    )
    text = f'{reasoning}\n[{answers}]\n{{"average_score": {format_average(average)}}}\n{_OPENING}{format_score(score)}</score>'
    if len(scores) != len(principles):
        raise ValueError(
            f"a trace needs one score per principle, but there are {len(scores)} scores for {len(principles)} principles"
        )
    parsed = parse_trace(text, principles)
    if isinstance(parsed, Unparsed):
        raise ValueError(f"these values do not form a valid trace; correct them: {parsed.reason}")
    return text


def format_average(average: float) -> str:
    """Format an average with at least one and at most two decimals ("1.0", "0.5", "0.83")."""
    return _two_decimals(average)


def format_score(score: float) -> str:
    """Format a final score with at least one and at most two decimals ("9.0", "7.5", "7.25")."""
    return _two_decimals(score)


def _two_decimals(value: float) -> str:
    whole, _, decimals = f"{value:.2f}".partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}"


def _split_score(text: str) -> tuple[str, float]:
    openings = text.count(_OPENING)
    closings = list(_CLOSING.finditer(text))
    if not openings:
        raise _Invalid("no <score> tag")
    if openings > 1 or len(closings) > 1:
        raise _Invalid(f"more than one score: {openings} opening and {len(closings)} closing tags")
    start = text.index(_OPENING)
    if not closings or closings[0].start() < start:
        raise _Invalid("the <score> tag is not closed")
    if text[closings[0].end() :].strip():
        raise _Invalid(f"text after the score: {_excerpt(text[closings[0].end() :])}")
    written = text[start + len(_OPENING) : closings[0].start()].strip()
    if not _NUMBER.fullmatch(written):
        raise _Invalid(f"the score is not a number: {_excerpt(written)}")
    score = float(written)
    if not 0.0 <= score <= 10.0:
        raise _Invalid(f"the score {_excerpt(written)} is outside [0, 10]")
    return text[:start], score


def _split_average(body: str) -> tuple[str, float]:
    found = list(_AVERAGE.finditer(body))
    if not found:
        raise _Invalid("no average_score object before the score")
    if len(found) > 1:
        raise _Invalid(f"more than one average_score object: {len(found)}")
    value = _load(body[found[0].start() :], "average_score object")
    if not isinstance(value, dict) or set(value) != {"average_score"}:
        raise _Invalid(
            f"the last JSON object must have only the key average_score, but has the keys {_excerpt(str(list(value)))}"
        )
    average = value["average_score"]
    if isinstance(average, bool) or not isinstance(average, (int, float)):
        raise _Invalid(f"average_score is not a number: {_excerpt(repr(average))}")
    if not 0 <= average <= 1:
        raise _Invalid(f"average_score {_excerpt(repr(average))} is outside [0, 1]")
    return body[: found[0].start()], float(average)


def _consistent_average(written: float, bits: Sequence[int]) -> float:
    mean = sum(bits) / len(bits) if bits else 0.0
    return written if abs(written - mean) <= _ROUNDING else mean


def _split_array(body: str) -> tuple[str, list[Any]]:
    found = list(_ARRAY.finditer(body))
    if not found:
        raise _Invalid("no array of questions and scores before the average")
    if len(found) > 1:
        raise _Invalid(f"more than one array of questions and scores: {len(found)}")
    value = _load(body[found[0].start() :], "array of questions and scores")
    if not isinstance(value, list):
        raise _Invalid("the array of questions and scores is not a JSON array")
    return body[: found[0].start()], value


def _answer_bits(answers: list[Any], principles: Sequence[Principle]) -> tuple[int, ...]:
    if len(answers) != len(principles):
        raise _Invalid(f"expected {len(principles)} answers, found {len(answers)}")
    bits = []
    for index, (answer, principle) in enumerate(zip(answers, principles, strict=True), start=1):
        if not isinstance(answer, dict) or set(answer) != {"question", "score"}:
            raise _Invalid(f"answer {index} is not an object with exactly the keys question and score")
        if answer["question"] != principle.question:
            raise _Invalid(f"answer {index} is for a different question: {_excerpt(str(answer['question']))}")
        if type(answer["score"]) is not int or answer["score"] not in (0, 1):
            raise _Invalid(f"the score of answer {index} is neither 0 nor 1: {_excerpt(repr(answer['score']))}")
        bits.append(answer["score"])
    return tuple(bits)


def _load(text: str, part: str) -> Any:
    try:
        return json.loads(
            _STRING.sub(_double_quoted, text.rstrip()), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except _Invalid:
        raise
    except (ValueError, RecursionError) as error:
        raise _Invalid(f"the {part} is not valid JSON, or is followed by other text: {_excerpt(str(error))}") from None


def _double_quoted(match: re.Match[str]) -> str:
    inner = match.group(1)
    if inner is None:
        return match.group(0)
    return '"' + _ESCAPE.sub(_escaped, inner) + '"'


def _escaped(match: re.Match[str]) -> str:
    if match.group(2):
        return '\\"'
    return "'" if match.group(1) == "'" else match.group(0)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Invalid(f"duplicate key in {_excerpt(str([key for key, _ in pairs]))}")
    return value


def _no_constant(name: str) -> Any:
    raise _Invalid(f"{name} is not a valid number in JSON")


def _excerpt(text: str, limit: int = 80) -> str:
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
