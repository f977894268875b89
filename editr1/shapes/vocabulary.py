"""The language of the shapes dataset: instructions, questions, reasoning lines, and the phrases that are single tokens.

An instruction is one of::

    make the top-left red square yellow
    remove the top-left red square
    add a blue circle at the top-left
    move the top-left red square to the bottom-right
    make the background grey

A question is one of ``top-left is yellow square?``, ``top-left is empty?``, ``background is grey?``, ``top-left kept?``,
``background kept?``, ``picture clean?``. A reasoning line states the requested content (follow) or the original content
(keep), the content of the edited image, and the verdict: ``top-left want yellow square -> red square, no;``,
``top-left had empty -> empty, yes;``, ``picture looks clean, yes;``.
"""

from __future__ import annotations

from typing import Final

PLACES: Final = ("top-left", "top-right", "bottom-left", "bottom-right")
"""The four cells in reading order."""
COLOURS: Final = ("red", "green", "blue", "yellow", "purple")
SHAPES: Final = ("square", "circle", "triangle")
BACKGROUNDS: Final = ("white", "grey", "black", "brown")
OBJECTS: Final = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""The fifteen objects. Object ``k`` has the colour ``COLOURS[k // 3]`` and the shape ``SHAPES[k % 3]``."""
EMPTY: Final = "empty"
CONTENTS: Final = (*OBJECTS, EMPTY)
"""The possible contents of a cell: one of the objects, or nothing (index 15)."""

BACKGROUND: Final = "background"
CLEAN_QUESTION: Final = "picture clean?"
SCORE_OPENING: Final = "}\n<score>"
"""The phrase that precedes the final score in a trace."""


def follow_question(place: str, content: str) -> str:
    """Return the question that asks whether ``place`` (a cell or the background) now has ``content`` (category follow)."""
    return f"{place} is {content}?"


def keep_question(place: str) -> str:
    """Return the question that asks whether ``place`` (a cell or the background) is unchanged (category keep)."""
    return f"{place} kept?"


def follow_line(place: str, expected: str, seen: str, verdict: int) -> str:
    """Return the reasoning line of a trace for a follow question."""
    return f"{place} want {expected} -> {seen}{_verdict(verdict)}"


def keep_line(place: str, before: str, seen: str, verdict: int) -> str:
    """Return the reasoning line of a trace for a keep question."""
    return f"{place} had {before} -> {seen}{_verdict(verdict)}"


def quality_line(clean: int, verdict: int) -> str:
    """Return the reasoning line of a trace for the quality question."""
    return f"picture looks {'clean' if clean else 'dirty'}{_verdict(verdict)}"


def model_words() -> list[str]:
    """Return the phrases that are single tokens of the small models: first those of the shapes dataset, then those of the photo demo.

    Their order determines the token ids. Append new phrases at the end; otherwise the shipped checkpoints break.
    """
    from editr1.shapes.photo_labeller import demo_phrases

    return list(dict.fromkeys([*phrases(), *demo_phrases()]))


def phrases() -> list[str]:
    """Return every phrase of the shapes dataset once, in a fixed order.

    Each phrase is a single token of the small models. A trace in canonical form with six principles therefore has only
    about 55 tokens. If several phrases match a text, the tokenizer uses the longest one.
    """
    places = (*PLACES, BACKGROUND)
    found = [
        *(f" {place}" for place in places),
        *(f"{place} is" for place in places),
        *(f"{place} kept?" for place in places),
        *(f"{place} want" for place in places),
        *(f"{place} had" for place in places),
        *(f" {content}" for content in CONTENTS),
        *(f" {colour}" for colour in COLOURS),
        *(f" {shape}" for shape in SHAPES),
        *(f" {background}" for background in BACKGROUNDS),
        "make the",
        "remove the",
        "add a",
        "move the",
        " at the",
        " to the",
        "compare",
        CLEAN_QUESTION,
        "picture looks",
        " clean",
        " dirty",
        " ->",
        *(f", {word};{end}" for end in ("\n", "") for word in ("yes", "no")),
        '[{"question": "',
        *(f'", "score": {bit}}}, {{"question": "' for bit in (0, 1)),
        *(f'", "score": {bit}}}]\n{{"average_score": ' for bit in (0, 1)),
        *(f'", "score": {bit}}}' for bit in (0, 1)),
        ', {"question": "',
        ']\n{"average_score": ',
        SCORE_OPENING,
        "<score>",
        "</score>",
        *(f"{step / 2:.1f}" for step in range(21)),
        *(average for average in ("0.17", "0.25", "0.33", "0.67", "0.75", "0.83")),
        *(f"0.{tenth}" for tenth in range(1, 10)),
    ]
    return list(dict.fromkeys(found))


def _verdict(bit: int) -> str:
    return f", {'yes' if bit else 'no'};"
