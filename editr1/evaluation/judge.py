"""What a VLM judge answers on GEdit-Bench and ImgEdit-Bench, parsed strictly: marks, or the reason why there are none.

GEdit-Bench is judged by VIEScore (Ku et al., arXiv 2312.14867): SC sees both pictures, PQ the edit alone, and each
answers one JSON object with two marks from 0 to 10. ImgEdit-Bench (Ye et al., arXiv 2505.20275) answers three labelled
marks from 1 to 5. The public scripts guess at random or drop what they cannot parse; here it is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from editr1.data.types import DataModel, EncodedImage, Unparsed

Judge = Callable[[str, Sequence[EncodedImage]], str]
"""Asks a VLM: a prompt and the pictures in order; the answer as text."""

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
_DELIMITED = re.compile(r"\A\|\|V\^=\^V\|\|(.*)\|\|V\^=\^V\|\|\Z", re.DOTALL)
_LABELLED = re.compile(r"\A\s*[*\-\s]*([A-Za-z][^:]*?)\s*:\s*\**\s*([0-9]+)\s*\**\s*\Z")


class Marks(DataModel):
    """The marks of one answer, in its order, and its reasoning."""

    values: tuple[float, ...]
    reasoning: str = ""


def parse_viescore(text: str, marks: int = 2) -> Marks | Unparsed:
    """One JSON object ``{"score": [a, b], "reasoning": "..."}`` with ``marks`` numbers in [0, 10].

    The object may stand in a Markdown fence or between VIEScore's ``||V^=^V||``; nothing else may stand beside it.
    """
    inner = text.strip()
    for wrapper in (_FENCE, _DELIMITED):
        if match := wrapper.match(inner):
            inner = match.group(1).strip()
    try:
        answer = json.loads(inner)
    except ValueError as error:
        return Unparsed(reason=f"no JSON object: {error}")
    if not isinstance(answer, dict) or "score" not in answer:
        return Unparsed(reason="the JSON has no field 'score'")
    values = answer["score"]
    if not isinstance(values, list) or len(values) != marks:
        return Unparsed(reason=f"'score' must be a list of {marks} marks, got {values!r:.80}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            return Unparsed(reason=f"a mark must be a number from 0 to 10, got {value!r:.80}")
    return Marks(values=tuple(float(v) for v in values), reasoning=str(answer.get("reasoning", "")))


def parse_imgedit(text: str) -> Marks | Unparsed:
    """Exactly three lines "label: mark" with whole marks from 1 to 5; other lines are the reasoning."""
    found: list[int] = []
    other: list[str] = []
    for line in text.splitlines():
        if match := _LABELLED.match(line):
            found.append(int(match.group(2)))
        elif line.strip():
            other.append(line.strip())
    if len(found) != 3:
        return Unparsed(reason=f"three labelled marks are needed, got {len(found)}")
    if outside := [mark for mark in found if not 1 <= mark <= 5]:
        return Unparsed(reason=f"a mark must lie between 1 and 5, got {outside[0]}")
    return Marks(values=tuple(float(mark) for mark in found), reasoning="\n".join(other))


def parse_imgedit_published(text: str) -> float | None:
    """The mean as ImgEdit's own script takes it: all lines "label: digits", however many, rounded to two decimals."""
    parts = [line.strip().split(": ") for line in text.splitlines()]
    marks = [int(p[1]) for p in parts if len(p) == 2 and p[1].isdigit()]
    return round(sum(marks) / len(marks), 2) if marks else None
