"""Parsers for the answers of labelling models."""

from __future__ import annotations

import json

import pytest

from editr1.config.curate import PrincipleCounts
from editr1.curation.answers import read_difficulty, read_gold, read_principles
from editr1.curation.prompts import principles_json
from editr1.llm.answers import UnreadableAnswer

COUNTS = PrincipleCounts(total=(4, 4), follow=(1, 2), keep=(1, 2), quality=(1, 1))


def test_principles_are_parsed_with_or_without_fences_and_prose(principles) -> None:
    text = principles_json(principles)
    assert read_principles(text, COUNTS) == principles
    assert read_principles(f"Here you are:\n```json\n{text}\n```\n", COUNTS) == principles


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda items: items[:3], "3 principles"),
        (lambda items: [items[0], *items[:3]], "twice"),
        (lambda items: [dict(items[0], category="Style"), *items[1:]], "category"),
        (lambda items: [dict(items[0], weight=1), *items[1:]], "weight"),
        (
            lambda items: [dict(items[0], question="Is <score> shown?"), *items[1:]],
            "no trace that repeats the question",
        ),
        (lambda items: [dict(items[0], question="Is <|im_end|> gone?"), *items[1:]], "control token"),
        (lambda items: [dict(item, category="Image Quality") for item in items], "principles.follow allows 1 to 2"),
    ],
)
def test_malformed_principles_are_rejected_with_the_reason(principles, change, reason) -> None:
    with pytest.raises(UnreadableAnswer, match=reason):
        read_principles(json.dumps(change(json.loads(principles_json(principles)))), COUNTS)


def gold(principles, bits) -> dict:
    return {
        "gold": [
            {"question": item.question, "gold": bit, "reason": ""} for item, bit in zip(principles, bits, strict=True)
        ]
    }


def test_gold_verdicts_are_aligned_with_the_questions(principles) -> None:
    assert read_gold(json.dumps(gold(principles, (1, 0, 0, 1))), principles) == (1, 0, 0, 1)


@pytest.mark.parametrize("bit", [2, -1, "1", True, 0.5, None])
def test_gold_verdict_other_than_0_or_1_is_rejected(principles, bit) -> None:
    with pytest.raises(UnreadableAnswer, match="entry 1"):
        read_gold(json.dumps(gold(principles, (bit, 0, 0, 1))), principles)


def test_gold_verdicts_in_wrong_order_or_number_are_rejected(principles) -> None:
    value = gold(principles, (1, 0, 0, 1))
    with pytest.raises(UnreadableAnswer, match="3 gold verdicts for 4"):
        read_gold(json.dumps({"gold": value["gold"][:3]}), principles)
    with pytest.raises(UnreadableAnswer, match="entry 1 of the answer does not repeat question 1"):
        read_gold(json.dumps({"gold": value["gold"][::-1]}), principles)


def test_difficulty_rating_must_be_a_boolean() -> None:
    assert read_difficulty('{"hard": true, "reason": "two steps"}')
    for text in ('{"hard": "yes"}', "hard", "{", "[true]"):
        with pytest.raises(UnreadableAnswer):
            read_difficulty(text)
