r"""Grammar of a verifier's trace: reasoning, per-question marks, their average, the final score.

The form is the paper's (arXiv 2604.27505, section 3.1 and appendix prompts)::

    <reasoning>
    [{"question": "Q1", "score": 1}, {"question": "Q2", "score": 0}]
    {"average_score": 0.5}
    <score>7.5</score>

Beside the canonical spelling, strings of the array and the object may be quoted with single quotes, and the final tag
may be closed by ``<\score>``, as real models do. Nothing looser is read: a trace that is not of this form has no number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from editr1.data.types import Principle, Unparsed, Verdict

_OPENING: Final = "<score>"
_CLOSING: Final = re.compile(r"</score>|<\\score>")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,6}(?:\.[0-9]{1,9})?")
_ARRAY: Final = re.compile(r"""\[\s*\{\s*["'](?:question|score)["']\s*:""")
_AVERAGE: Final = re.compile(r"""\{\s*["']average_score["']\s*:""")
_STRING: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'""", re.DOTALL)
_ESCAPE: Final = re.compile(r"""\\(.)|(")""", re.DOTALL)


class _Refused(ValueError):
    """Carries the reason of an :class:`Unparsed`."""


def parse_trace(text: str, principles: Sequence[Principle]) -> Verdict | Unparsed:
    r"""Read a trace strictly; never raises on any ``text``.

    Returns a :class:`Verdict` when ``text`` is of the module's form and answers exactly the questions of
    ``principles``, in their order, each by the integer 0 or 1; else an :class:`Unparsed` that names the first rule
    broken, looked at from the end of the text. White space between the parts is free. The average is what the trace
    wrote, in [0, 1], not recomputed; the score is in [0, 10].
    """
    try:
        body, score = _split_score(text)
        body, average = _split_average(body)
        reasoning, marks = _split_array(body)
        return Verdict(scores=_bits(marks, principles), average=average, score=score, reasoning=reasoning.strip())
    except _Refused as refusal:
        return Unparsed(reason=str(refusal))


def format_trace(
    reasoning: str, principles: Sequence[Principle], scores: Sequence[int], score: float, average: float | None = None
) -> str:
    """Write the canonical spelling.

    ``scores[i]`` in {0, 1} answers ``principles[i]``; ``score`` in [0, 10] is written with one decimal, ``average`` in
    [0, 1] (by default the mean of ``scores``) with one or two. Raises ``ValueError`` when the result would not be read
    back by :func:`parse_trace`: wrong number of scores, values out of range, reasoning that holds a part of the form.
    """
    if average is None:
        average = sum(scores) / len(scores) if len(scores) else 0.0
    marks = ", ".join(
        f'{{"question": {json.dumps(principle.question, ensure_ascii=False)}, "score": {int(bit)}}}'
        for principle, bit in zip(principles, scores, strict=False)
    )
    text = f'{reasoning}\n[{marks}]\n{{"average_score": {format_average(average)}}}\n{_OPENING}{format_score(score)}</score>'
    if len(scores) != len(principles):
        raise ValueError(f"a trace needs one score a principle: {len(scores)} scores for {len(principles)} principles")
    back = parse_trace(text, principles)
    if isinstance(back, Unparsed):
        raise ValueError(f"this trace could not be read back: {back.reason}")
    return text


def format_average(average: float) -> str:
    """The average's canonical spelling: at most two decimals, at least one ("1.0", "0.5", "0.83")."""
    whole, _, decimals = f"{average:.2f}".partition(".")
    return f"{whole}.{decimals.rstrip('0') or '0'}"


def format_score(score: float) -> str:
    """The final score's canonical spelling: one decimal ("9.0", "7.5")."""
    return f"{score:.1f}"


def _split_score(text: str) -> tuple[str, float]:
    openings = text.count(_OPENING)
    closings = list(_CLOSING.finditer(text))
    if not openings:
        raise _Refused("no <score> tag")
    if openings > 1 or len(closings) > 1:
        raise _Refused(f"more than one score: {openings} opening and {len(closings)} closing tags")
    start = text.index(_OPENING)
    if not closings or closings[0].start() < start:
        raise _Refused("the <score> tag is not closed")
    if text[closings[0].end() :].strip():
        raise _Refused(f"text after the score: {_excerpt(text[closings[0].end() :])}")
    written = text[start + len(_OPENING) : closings[0].start()].strip()
    if not _NUMBER.fullmatch(written):
        raise _Refused(f"the score is not a number: {_excerpt(written)}")
    score = float(written)
    if not 0.0 <= score <= 10.0:
        raise _Refused(f"the score {_excerpt(written)} is outside [0, 10]")
    return text[:start], score


def _split_average(body: str) -> tuple[str, float]:
    found = list(_AVERAGE.finditer(body))
    if not found:
        raise _Refused("no average_score object before the score")
    if len(found) > 1:
        raise _Refused(f"more than one average_score object: {len(found)}")
    value = _load(body[found[0].start() :], "average_score object")
    if not isinstance(value, dict) or set(value) != {"average_score"}:
        raise _Refused(f"the average_score object has other keys: {_excerpt(str(list(value)))}")
    average = value["average_score"]
    if isinstance(average, bool) or not isinstance(average, (int, float)):
        raise _Refused(f"average_score is not a number: {_excerpt(repr(average))}")
    if not 0 <= average <= 1:
        raise _Refused(f"average_score {_excerpt(repr(average))} is outside [0, 1]")
    return body[: found[0].start()], float(average)


def _split_array(body: str) -> tuple[str, list[Any]]:
    found = list(_ARRAY.finditer(body))
    if not found:
        raise _Refused("no array of questions and scores before the average")
    if len(found) > 1:
        raise _Refused(f"more than one array of questions and scores: {len(found)}")
    value = _load(body[found[0].start() :], "array of questions and scores")
    if not isinstance(value, list):
        raise _Refused("the array of questions and scores is not an array")
    return body[: found[0].start()], value


def _bits(marks: list[Any], principles: Sequence[Principle]) -> tuple[int, ...]:
    if len(marks) != len(principles):
        raise _Refused(f"{len(marks)} questions answered where {len(principles)} were asked")
    bits = []
    for index, (mark, principle) in enumerate(zip(marks, principles, strict=True), start=1):
        if not isinstance(mark, dict) or set(mark) != {"question", "score"}:
            raise _Refused(f"answer {index} is not an object of question and score")
        if mark["question"] != principle.question:
            raise _Refused(f"answer {index} is to another question: {_excerpt(str(mark['question']))}")
        if type(mark["score"]) is not int or mark["score"] not in (0, 1):
            raise _Refused(f"answer {index} is neither 0 nor 1: {_excerpt(repr(mark['score']))}")
        bits.append(mark["score"])
    return tuple(bits)


def _load(text: str, what: str) -> Any:
    try:
        return json.loads(
            _STRING.sub(_double_quoted, text.rstrip()), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except _Refused:
        raise
    except (ValueError, RecursionError) as error:
        raise _Refused(f"the {what} is not valid JSON followed by the next part: {_excerpt(str(error))}") from None


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
        raise _Refused(f"a key is written twice: {_excerpt(str([key for key, _ in pairs]))}")
    return value


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is not a number that a trace may hold")


def _excerpt(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
