"""Parse the answers of the labelling models. If an answer is malformed, :class:`UnreadableAnswer` is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import ValidationError

from editr1.config.curate import PrincipleCounts
from editr1.data.rules import question_fault
from editr1.data.types import Category, Principle
from editr1.llm.answers import UnreadableAnswer, find_json, shown


def read_principles(text: str, counts: PrincipleCounts) -> tuple[Principle, ...]:
    """Parse an answer that contains principles in the form ``[{"question", "category"}, ...]``.

    Raises:
        UnreadableAnswer: The answer is malformed, a question occurs twice or violates a rule of :mod:`editr1.data.rules`, or
            the number of principles (in total or of one category) is outside the limits in ``counts``.
    """
    entries = find_json(text, "[")
    if not isinstance(entries, list):
        raise UnreadableAnswer("the answer is not a JSON array")
    try:
        found = tuple(Principle.model_validate(entry) for entry in entries)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = f"{first['loc'][0]} " if first["loc"] else ""
        raise UnreadableAnswer(
            f"an entry of the answer is not an object with the fields question and category: {field}{shown(first['input'])}: {first['msg']}"
        ) from None
    for item in found:
        if fault := question_fault(item.question):
            raise UnreadableAnswer(f"the question {item.question!r:.80} of the answer is not valid: {fault}")
    repeated = [question for question, count in Counter(item.question for item in found).items() if count > 1]
    if repeated:
        raise UnreadableAnswer(f"the question {shown(repeated[0])} occurs twice")
    sizes = {"total": len(found)} | {
        kind.name.lower(): sum(item.category is kind for item in found) for kind in Category
    }
    for name, size in sizes.items():
        least, most = getattr(counts, name)
        if not least <= size <= most:
            raise UnreadableAnswer(
                f"the answer has {size} principles ({name}), but the setting principles.{name} allows {least} to {most}"
            )
    return found


def read_gold(text: str, principles: Sequence[Principle]) -> tuple[int, ...]:
    """Parse an answer that contains the gold verdicts (0 or 1), and return them in the order of ``principles``.

    The answer has the form ``{"gold": [{"question", "gold", "reason"}, ...]}``.

    Raises:
        UnreadableAnswer: The entries differ from ``principles`` in number or order, or a verdict is neither 0 nor 1.
    """
    value = find_json(text, "{")
    entries = value.get("gold") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise UnreadableAnswer('the answer is not {"gold": [...]}')
    if len(entries) != len(principles):
        raise UnreadableAnswer(f"the answer has {len(entries)} gold verdicts for {len(principles)} questions")
    verdicts = []
    for number, (entry, principle) in enumerate(zip(entries, principles, strict=True), start=1):
        if not isinstance(entry, dict) or _normalised(entry.get("question")) != _normalised(principle.question):
            raise UnreadableAnswer(f"entry {number} of the answer does not repeat question {number}")
        if type(entry.get("gold")) is not int or entry["gold"] not in (0, 1):
            raise UnreadableAnswer(f"entry {number} of the answer: gold is {shown(entry.get('gold'))}, not 0 or 1")
        verdicts.append(entry["gold"])
    return tuple(verdicts)


def read_difficulty(text: str) -> bool:
    """Parse an answer that states whether a case is hard, in the form ``{"hard": true or false, ...}``.

    Raises:
        UnreadableAnswer: ``hard`` is missing or not a boolean.
    """
    value = find_json(text, "{")
    if not isinstance(value, dict) or not isinstance(value.get("hard"), bool):
        raise UnreadableAnswer('the answer must be {"hard": true} or {"hard": false}')
    return bool(value["hard"])


def read_ratings(text: str) -> tuple[str, float, float]:
    """Parse an answer of the form ``{"reasoning", "score": [follow, keep]}``.

    Returns the reasoning and the two ratings in [0, 10].

    Raises:
        UnreadableAnswer: A field is missing or a rating is not a number in [0, 10].
    """
    value = find_json(text, "{")
    if not isinstance(value, dict) or not isinstance(value.get("reasoning"), str):
        raise UnreadableAnswer("the answer is not an object with reasoning and score")
    ratings = value.get("score")
    if not isinstance(ratings, list) or len(ratings) != 2:
        raise UnreadableAnswer(f"score in the answer is {shown(ratings)}, not a list of two ratings")
    for rating in ratings:
        if isinstance(rating, bool) or not isinstance(rating, (int, float)) or not 0 <= rating <= 10:
            raise UnreadableAnswer(f"score in the answer contains {shown(rating)}, which is not a rating from 0 to 10")
    return value["reasoning"].strip(), float(ratings[0]), float(ratings[1])


def _normalised(question: object) -> str | None:
    return " ".join(question.split()) if isinstance(question, str) else None
