"""Parsers for the two formats of judge answers, and the answers that they reject."""

from __future__ import annotations

import pytest

from editr1.data.types import Unparsed
from editr1.evaluation.judge import Ratings, parse_imgedit, parse_imgedit_published, parse_viescore

IMGEDIT = (
    "Brief reasoning: the fur changed; the rest stayed.\n"
    "Prompt Compliance: 4\nVisual Seamlessness: 5\nPhysical & Detail Fidelity: 3"
)


@pytest.mark.parametrize(
    "text",
    [
        '{"score": [8, 6.5], "reasoning": "fine"}',
        '```json\n{"reasoning": "fine", "score": [8, 6.5]}\n```',
        '||V^=^V||\n{"score": [8, 6.5], "reasoning": "fine"}\n||V^=^V||',
    ],
)
def test_viescore_ratings_are_parsed_from_bare_fenced_and_delimited_json(text):
    assert parse_viescore(text) == Ratings(values=(8.0, 6.5), reasoning="fine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I give it 8 and 6", "not a JSON object"),
        ('Here: {"score": [8, 6]}', "not a JSON object"),
        ('{"score": [8]}', "list of 2 ratings"),
        ('{"score": [8, 6, 7]}', "list of 2 ratings"),
        ('{"score": 8}', "list of 2 ratings"),
        ('{"score": [8, 11]}', "from 0 to 10"),
        ('{"score": [8, -1]}', "from 0 to 10"),
        ('{"score": [8, NaN]}', "NaN is not a number in JSON"),
        ('{"score": [8, "6"]}', "from 0 to 10"),
        ('{"score": [true, 6]}', "from 0 to 10"),
        ('{"reasoning": "fine"}', "no field 'score'"),
        ("[8, 6]", "no field 'score'"),
        ("", "not a JSON object"),
    ],
)
def test_invalid_viescore_answer_is_unparsed_with_the_reason(text, reason):
    found = parse_viescore(text)
    assert isinstance(found, Unparsed)
    assert reason in found.reason


def test_imgedit_answer_has_three_labelled_ratings():
    found = parse_imgedit(IMGEDIT)
    assert isinstance(found, Ratings)
    assert found.values == (4.0, 5.0, 3.0)
    assert found.reasoning.startswith("Brief reasoning")
    assert parse_imgedit_published(IMGEDIT) == 4.0


@pytest.mark.parametrize(
    ("text", "published", "reason"),
    [
        ("Compliance: 4\nSeamlessness: 5", 4.5, "got 2"),
        ("A: 4\nB: 5\nC: 3\nD: 1", 3.25, "got 4"),
        ("A: 4\nB: 5\nC: 6", 5.0, "between 1 and 5, got 6"),
        ("no ratings", None, "got 0"),
    ],
)
def test_imgedit_rejects_answers_that_the_published_script_averages(text, published, reason):
    assert parse_imgedit_published(text) == published
    found = parse_imgedit(text)
    assert isinstance(found, Unparsed)
    assert reason in found.reason
