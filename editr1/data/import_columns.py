"""Check the columns of an import table, and detect tables that contain pairwise votes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from editr1.data.errors import TableError

REQUIRED: Final = ("source", "instruction", "edited", "editor")
OPTIONAL: Final = ("case_id", "preferred", "rank", "principles")
HOW_TO_WRITE_VOTES: Final = (
    "Such votes cannot be imported. A table must contain rankings: one row per edited image of a case, with "
    "preferred (winner, loser or same) or rank. Either give every vote a separate case_id and two rows (winner "
    "and loser, or same and same), or count the votes for each image and write one rank per image"
)
_SIDES: Final = (
    ("left", "right"),
    ("1", "2"),
    ("0", "1"),
    ("a", "b"),
    ("one", "two"),
    ("first", "second"),
    ("chosen", "rejected"),
    ("winner", "loser"),
    ("win", "lose"),
    ("preferred", "rejected"),
    ("positive", "negative"),
    ("better", "worse"),
)
_THIRD: Final = {"1": "3", "0": "2", "a": "c", "one": "three", "first": "third"}
"""Words that denote a third candidate.

A table with a column such as ``Editor3`` compares more than two candidates, so its rows are not pairs.
"""
_VOTE_WORDS: Final = {"vote", "votes", "preference", "choice", "chosen", "rejected", "winner", "loser"}


def check_columns(table: Path, row: int | None, columns: Sequence[str]) -> None:
    """Check that no column is missing, unknown, unnamed or duplicated.

    ``row`` is the line number of the header, or None if the table has no header.

    Raises:
        TableError: The first violation. If the table contains votes on pairs, the error states this.
    """
    check_not_votes(table, row, columns)
    unnamed = [number for number, name in enumerate(columns, start=1) if not name.strip()]
    missing = [name for name in REQUIRED if name not in columns]
    if missing and columns:
        similar = [name for name in columns if name.strip().lower() == missing[0]]
        rule = f"this column is missing; the table has the columns: {', '.join(columns)}"
        raise TableError(
            table, row, missing[0], None, f"{rule}; rename {similar[0]!r} to {missing[0]!r}" if similar else rule
        )
    if missing:
        rule = "this column is missing because the table is empty; write the column names in the first line"
        raise TableError(table, row, missing[0], None, rule)
    if unnamed:
        rule = "this column has no name; remove it, or the delimiter at the end of every line"
        raise TableError(table, row, f"column {unnamed[0]} of {len(columns)}", columns[unnamed[0] - 1], rule)
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        rule = f"unknown column; allowed columns: {', '.join((*REQUIRED, *OPTIONAL))}"
        raise TableError(table, row, unknown[0], None, rule)
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise TableError(table, row, twice[0], None, "this column occurs more than once; remove the duplicates")


def check_not_votes(table: Path, row: int | None, columns: Sequence[str]) -> None:
    """Reject a table with one row per pair of edited images.

    Such a table has no column ``edited``. It has two columns whose names differ only in the side of the pair, such as
    ``left_image`` and ``right_image``, or a column such as ``vote`` or ``rejected_images``.

    Raises:
        TableError: The table has such columns. The error names them and describes the supported form.
    """
    if "edited" in columns:
        return
    sides = _two_sides(columns)
    votes = [name for name in columns if name not in OPTIONAL and _VOTE_WORDS & set(_words(name))]
    seen = " and ".join(map(repr, sides or votes[:1]))
    if seen:
        rule = f"the columns show that each row is a vote on a pair of edited images: {seen}. {HOW_TO_WRITE_VOTES}"
        raise TableError(table, row, None, None, rule)


def _two_sides(columns: Sequence[str]) -> tuple[str, str] | None:
    by_words = {tuple(_words(name)): name for name in columns}

    def with_word(words: tuple[str, ...], index: int, word: str) -> str | None:
        return by_words.get((*words[:index], word, *words[index + 1 :]))

    for words, name in by_words.items():
        for index, word in enumerate(words):
            for one, other in _SIDES:
                second = with_word(words, index, other) if word == one else None
                if second is not None and with_word(words, index, _THIRD.get(one, "")) is None:
                    return name, second
    return None


def _words(name: str) -> list[str]:
    """Split a name into lower-case words and numbers: "path1" and "leftImage" are ["path", "1"] and ["left", "image"]."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", name)]
