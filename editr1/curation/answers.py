"""Reading what labelling models answer: JSON somewhere in the text, fences around it at most."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from editr1.config.curate import PrincipleCounts
from editr1.data.types import Category, Principle


class Unreadable(ValueError):
    """The answer is not of the form that was asked for; the message says why."""


def without_fences(text: str) -> str:
    """The text without the lines that open or close a code fence."""
    return _FENCE.sub("", text).strip() if "```" in text else text


def read_principles(text: str, counts: PrincipleCounts) -> tuple[Principle, ...]:
    """Read ``[{"question", "category"}, ...]``.

    Raises :class:`Unreadable` for another form, a question twice, or numbers outside ``counts``.
    """
    entries = _json_value(text, "[")
    if not isinstance(entries, list):
        raise Unreadable("not a JSON array")
    try:
        found = tuple(Principle.model_validate(entry) for entry in entries)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Unreadable(f"an entry is not {{question, category}}: {first['loc']}: {first['msg']}") from None
    questions = [item.question for item in found]
    if len(set(questions)) != len(questions):
        raise Unreadable("a question is asked twice")
    sizes = {"total": len(found)} | {
        kind.name.lower(): sum(item.category is kind for item in found) for kind in Category
    }
    for name, size in sizes.items():
        least, most = getattr(counts, name)
        if not least <= size <= most:
            raise Unreadable(f"{size} principles ({name}) where {least} to {most} are allowed")
    return found


def read_gold(text: str, principles: Sequence[Principle]) -> tuple[int, ...]:
    """Read ``{"gold": [{"question", "gold", "reason"}, ...]}``, aligned with ``principles``.

    Raises :class:`Unreadable` when the list has another length or order, or a gold is neither 0 nor 1.
    """
    value = _json_value(text, "{")
    entries = value.get("gold") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise Unreadable('not {"gold": [...]}')
    if len(entries) != len(principles):
        raise Unreadable(f"{len(entries)} gold verdicts for {len(principles)} questions")
    bits = []
    for number, (entry, principle) in enumerate(zip(entries, principles, strict=True), start=1):
        if not isinstance(entry, dict) or _plain(entry.get("question")) != _plain(principle.question):
            raise Unreadable(f"entry {number} does not answer question {number}")
        if type(entry.get("gold")) is not int or entry["gold"] not in (0, 1):
            raise Unreadable(f"entry {number}: gold is {entry.get('gold')!r}, not 0 or 1")
        bits.append(entry["gold"])
    return tuple(bits)


def read_judgement(text: str) -> bool:
    """Read ``{"hard": true|false, ...}``. Raises :class:`Unreadable`."""
    value = _json_value(text, "{")
    if not isinstance(value, dict) or not isinstance(value.get("hard"), bool):
        raise Unreadable('not {"hard": true or false}')
    return bool(value["hard"])


def read_marks(text: str) -> tuple[str, float, float]:
    """Read ``{"reasoning", "score": [follow, keep]}``; marks in [0, 10]. Raises :class:`Unreadable`."""
    value = _json_value(text, "{")
    if not isinstance(value, dict) or not isinstance(value.get("reasoning"), str):
        raise Unreadable("not an object with reasoning and score")
    marks = value.get("score")
    if not isinstance(marks, list) or len(marks) != 2:
        raise Unreadable(f"score is {marks!r}, not a list of two marks")
    for mark in marks:
        if isinstance(mark, bool) or not isinstance(mark, (int, float)) or not 0 <= mark <= 10:
            raise Unreadable(f"{mark!r} is not a mark from 0 to 10")
    return value["reasoning"].strip(), float(marks[0]), float(marks[1])


def _json_value(text: str, opening: str) -> Any:
    text = without_fences(text)
    start = text.find(opening)
    if start < 0:
        raise Unreadable(f"no {opening} in the answer: {text[:80]!r}")
    try:
        return _DECODER.raw_decode(text, start)[0]
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no valid JSON: {error}") from None


def _plain(question: object) -> str | None:
    return " ".join(question.split()) if isinstance(question, str) else None


_FENCE: Final = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
_DECODER: Final = json.JSONDecoder()
