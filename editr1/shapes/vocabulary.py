"""Words of the shapes world: instructions, questions, reasoning lines, and the phrases that get a token of their own.

An instruction is one of::

    make the top-left red square yellow
    remove the top-left red square
    add a blue circle at the top-left
    move the top-left red square to the bottom-right
    make the background grey

a question one of ``top-left is yellow square?``, ``top-left is empty?``, ``background is grey?``, ``top-left kept?``,
``background kept?``, ``picture clean?``; a reasoning line names what was wanted (follow) or there before (keep), what
is seen now, and the verdict: ``top-left want yellow square -> red square, no;``, ``top-left had empty -> empty, yes;``,
``picture looks clean, yes;``.
"""

from __future__ import annotations

from typing import Final

PLACES: Final = ("top-left", "top-right", "bottom-left", "bottom-right")
"""The four cells in reading order."""
COLOURS: Final = ("red", "green", "blue", "yellow", "purple")
SHAPES: Final = ("square", "circle", "triangle")
BACKGROUNDS: Final = ("white", "grey", "black", "brown")
OBJECTS: Final = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""The fifteen objects; object ``k`` has colour ``k // 3`` and shape ``k % 3``."""
EMPTY: Final = "empty"
CONTENTS: Final = (*OBJECTS, EMPTY)
"""What a cell can hold; index 15 is nothing."""

GROUND: Final = "background"
CLEAN_QUESTION: Final = "picture clean?"
SCORE_OPENING: Final = "}\n<score>"
"""The phrase of a trace after which the final score stands."""


def is_question(place: str, content: str) -> str:
    """Question of category follow: does ``place`` (a cell or the background) hold ``content`` now."""
    return f"{place} is {content}?"


def kept_question(place: str) -> str:
    """Question of category keep: is ``place`` (a cell or the background) as before."""
    return f"{place} kept?"


def want_line(place: str, wanted: str, seen: str, verdict: int) -> str:
    """Reasoning line of a follow question."""
    return f"{place} want {wanted} -> {seen}{_verdict(verdict)}"


def had_line(place: str, before: str, seen: str, verdict: int) -> str:
    """Reasoning line of a keep question."""
    return f"{place} had {before} -> {seen}{_verdict(verdict)}"


def looks_line(clean: int, verdict: int) -> str:
    """Reasoning line of the quality question: 1 reads "clean", 0 "dirty"."""
    return f"picture looks {'clean' if clean else 'dirty'}{_verdict(verdict)}"


def model_words() -> list[str]:
    """The phrases that are one token each of the small models' tokenizers: the world's, then those of the photo demo.

    The order fixes token ids: what is added anywhere but at the end breaks shipped checkpoints.
    """
    from editr1.shapes.photo_judge import demo_phrases

    return list(dict.fromkeys([*phrases(), *demo_phrases()]))


def phrases() -> list[str]:
    """Every phrase of the shapes world's texts, in a fixed order, each once.

    Phrases are matched longest first from the left, so traces in canonical spelling come out at about 55 tokens for six
    principles.
    """
    places = (*PLACES, GROUND)
    found = [
        *(f" {place}" for place in places),
        *(f"{place} is" for place in places),
        *(f"{place} kept?" for place in places),
        *(f"{place} want" for place in places),
        *(f"{place} had" for place in places),
        *(f" {content}" for content in CONTENTS),
        *(f" {colour}" for colour in COLOURS),
        *(f" {shape}" for shape in SHAPES),
        *(f" {ground}" for ground in BACKGROUNDS),
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
