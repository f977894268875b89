"""The edits of the shapes dataset: generate and parse instructions, apply them, and derive their principles.

A place is one of the four cells or the background. A follow principle asks whether a place has the requested content,
a keep principle asks whether a place is unchanged, and the quality principle asks whether the image is clean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from editr1.data.types import Category, Principle
from editr1.shapes.scene import CELLS, NOTHING, Scene, different_value
from editr1.shapes.vocabulary import (
    BACKGROUND,
    BACKGROUNDS,
    CLEAN_QUESTION,
    COLOURS,
    CONTENTS,
    OBJECTS,
    PLACES,
    SHAPES,
    follow_question,
    keep_question,
)

BACKGROUND_PLACE: Final = CELLS
"""Index of the background among the places (4). The four cells have the indices 0 to 3."""


class Operation(StrEnum):
    """The operation that an instruction requests."""

    RECOLOR = "recolor"
    REMOVE = "remove"
    ADD = "add"
    MOVE = "move"
    BACKGROUND = "background"


@dataclass(frozen=True)
class Edit:
    """A parsed instruction: its operation, and the changes that it requests."""

    operation: Operation
    targets: tuple[tuple[int, int], ...]
    """Pairs (place, new content), one per place that changes. Places 0 to 3 are the cells, and place 4 is the
    background."""

    def apply(self, scene: Scene) -> Scene:
        """Return the scene that results from a perfect edit of ``scene``."""
        for place, content in self.targets:
            scene = scene.with_background(content) if place == BACKGROUND_PLACE else scene.with_cell(place, content)
        return scene

    @property
    def touched(self) -> tuple[int, ...]:
        """Indices of the places that the instruction changes."""
        return tuple(place for place, _ in self.targets)

    def principles(self) -> tuple[Principle, ...]:
        """Return the six principles of the edit.

        These are a follow principle for each place that changes, a keep principle for each other place, and one
        quality principle.
        """
        follow = [
            Principle(
                question=follow_question(place_name(place), content_name(place, content)), category=Category.FOLLOW
            )
            for place, content in self.targets
        ]
        keep = [
            Principle(question=keep_question(place_name(place)), category=Category.KEEP)
            for place in range(CELLS + 1)
            if place not in self.touched
        ]
        return (*follow, *keep, Principle(question=CLEAN_QUESTION, category=Category.QUALITY))


def place_name(place: int) -> str:
    """Return the name of a place: the position of a cell, such as "top-left", or "background"."""
    return BACKGROUND if place == BACKGROUND_PLACE else PLACES[place]


def content_name(place: int, content: int) -> str:
    """Return the name of the content of a place: an object or "empty" for a cell, and a colour for the background."""
    return BACKGROUNDS[content] if place == BACKGROUND_PLACE else CONTENTS[content]


def random_edit(scene: Scene, rng: np.random.Generator) -> tuple[str, Edit]:
    """Return a random instruction for ``scene``, and the parsed instruction. The five operations are equally likely."""
    operation = list(Operation)[int(rng.integers(len(Operation)))]
    place = int(rng.choice(scene.filled))
    free = int(rng.choice(scene.empty))
    content = scene.cells[place]
    if operation is Operation.RECOLOR:
        colour = COLOURS[different_value(content // len(SHAPES), len(COLOURS), rng)]
        text = f"make the {PLACES[place]} {CONTENTS[content]} {colour}"
    elif operation is Operation.REMOVE:
        text = f"remove the {PLACES[place]} {CONTENTS[content]}"
    elif operation is Operation.ADD:
        text = f"add a {OBJECTS[int(rng.integers(len(OBJECTS)))]} at the {PLACES[free]}"
    elif operation is Operation.MOVE:
        text = f"move the {PLACES[place]} {CONTENTS[content]} to the {PLACES[free]}"
    else:
        text = f"make the background {BACKGROUNDS[different_value(scene.background, len(BACKGROUNDS), rng)]}"
    return text, parse_instruction(text)


def parse_instruction(text: str) -> Edit:
    """Parse an instruction. Raise ValueError if it does not follow the grammar in ``vocabulary``."""
    match = INSTRUCTION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not an instruction of the shapes dataset; editr1.shapes.vocabulary describes the grammar"
        )
    found = {name: value for name, value in match.groupdict().items() if value is not None}
    if "background" in found:
        return Edit(Operation.BACKGROUND, ((BACKGROUND_PLACE, BACKGROUNDS.index(found["background"])),))
    if "recolored" in found:
        content = COLOURS.index(found["colour"]) * len(SHAPES) + OBJECTS.index(found["recolored_object"]) % len(SHAPES)
        return Edit(Operation.RECOLOR, ((PLACES.index(found["recolored"]), content),))
    if "removed" in found:
        return Edit(Operation.REMOVE, ((PLACES.index(found["removed"]), NOTHING),))
    if "added" in found:
        return Edit(Operation.ADD, ((PLACES.index(found["added"]), OBJECTS.index(found["added_object"])),))
    start, end = PLACES.index(found["start"]), PLACES.index(found["end"])
    if start == end:
        raise ValueError(f"{text!r} moves an object to the place where it already is; use a different destination")
    return Edit(Operation.MOVE, ((start, NOTHING), (end, OBJECTS.index(found["moved_object"]))))


_PLACE = "|".join(PLACES)
_OBJECT = "|".join(OBJECTS)
INSTRUCTION: Final = re.compile(
    rf"make the background (?P<background>{'|'.join(BACKGROUNDS)})"
    rf"|make the (?P<recolored>{_PLACE}) (?P<recolored_object>{_OBJECT}) (?P<colour>{'|'.join(COLOURS)})"
    rf"|remove the (?P<removed>{_PLACE}) (?:{_OBJECT})"
    rf"|add a (?P<added_object>{_OBJECT}) at the (?P<added>{_PLACE})"
    rf"|move the (?P<start>{_PLACE}) (?P<moved_object>{_OBJECT}) to the (?P<end>{_PLACE})"
)
"""A pattern that matches every instruction of the shapes dataset."""
