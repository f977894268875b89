"""Instructions of the shapes world: five operations, their wording, their effect and the principles they are judged by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from editr1.data.types import Category, Principle
from editr1.shapes.scene import CELLS, NOTHING, Scene, other
from editr1.shapes.vocabulary import (
    BACKGROUNDS,
    CLEAN_QUESTION,
    COLOURS,
    CONTENTS,
    GROUND,
    OBJECTS,
    PLACES,
    SHAPES,
    is_question,
    kept_question,
)

GROUND_PLACE: Final = CELLS
"""Place index of the background, after the four cells."""


class Operation(StrEnum):
    """What an instruction asks for."""

    RECOLOR = "recolor"
    REMOVE = "remove"
    ADD = "add"
    MOVE = "move"
    BACKGROUND = "background"


@dataclass(frozen=True)
class Edit:
    """A parsed instruction: each touched place (0-3 a cell, 4 the background) with the content it should get."""

    operation: Operation
    wanted: tuple[tuple[int, int], ...]

    def apply(self, scene: Scene) -> Scene:
        """The scene after the edit, done as asked."""
        for place, content in self.wanted:
            scene = scene.with_ground(content) if place == GROUND_PLACE else scene.with_cell(place, content)
        return scene

    @property
    def touched(self) -> tuple[int, ...]:
        """Touched places."""
        return tuple(place for place, _ in self.wanted)

    def principles(self) -> tuple[Principle, ...]:
        """Six principles: follow for each touched place, keep for each other one, quality for the picture."""
        follow = [
            Principle(question=is_question(place_name(place), content_name(place, content)), category=Category.FOLLOW)
            for place, content in self.wanted
        ]
        keep = [
            Principle(question=kept_question(place_name(place)), category=Category.KEEP)
            for place in range(CELLS + 1)
            if place not in self.touched
        ]
        return (*follow, *keep, Principle(question=CLEAN_QUESTION, category=Category.QUALITY))


def place_name(place: int) -> str:
    """Word of a place: a cell's or "background"."""
    return GROUND if place == GROUND_PLACE else PLACES[place]


def content_name(place: int, content: int) -> str:
    """Word of what a place holds: a background's colour, an object or "empty"."""
    return BACKGROUNDS[content] if place == GROUND_PLACE else CONTENTS[content]


def random_edit(scene: Scene, rng: np.random.Generator) -> tuple[str, Edit]:
    """An instruction that changes ``scene``, operation uniform among the five, with its parsed form."""
    operation = list(Operation)[int(rng.integers(len(Operation)))]
    place = int(rng.choice(scene.filled))
    free = int(rng.choice(scene.empty))
    content = scene.cells[place]
    if operation is Operation.RECOLOR:
        colour = COLOURS[other(content // len(SHAPES), len(COLOURS), rng)]
        text = f"make the {PLACES[place]} {CONTENTS[content]} {colour}"
    elif operation is Operation.REMOVE:
        text = f"remove the {PLACES[place]} {CONTENTS[content]}"
    elif operation is Operation.ADD:
        text = f"add a {OBJECTS[int(rng.integers(len(OBJECTS)))]} at the {PLACES[free]}"
    elif operation is Operation.MOVE:
        text = f"move the {PLACES[place]} {CONTENTS[content]} to the {PLACES[free]}"
    else:
        text = f"make the background {BACKGROUNDS[other(scene.ground, len(BACKGROUNDS), rng)]}"
    return text, parse_instruction(text)


def parse_instruction(text: str) -> Edit:
    """Read an instruction. Raises ``ValueError`` for one that is not of the world's grammar (see ``vocabulary``)."""
    match = INSTRUCTION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not an instruction of the shapes world: {text!r}; see editr1.shapes.vocabulary")
    found = {name: value for name, value in match.groupdict().items() if value is not None}
    if "ground" in found:
        return Edit(Operation.BACKGROUND, ((GROUND_PLACE, BACKGROUNDS.index(found["ground"])),))
    if "recolored" in found:
        content = COLOURS.index(found["colour"]) * len(SHAPES) + OBJECTS.index(found["recolored_object"]) % len(SHAPES)
        return Edit(Operation.RECOLOR, ((PLACES.index(found["recolored"]), content),))
    if "removed" in found:
        return Edit(Operation.REMOVE, ((PLACES.index(found["removed"]), NOTHING),))
    if "added" in found:
        return Edit(Operation.ADD, ((PLACES.index(found["added"]), OBJECTS.index(found["added_object"])),))
    start, end = PLACES.index(found["start"]), PLACES.index(found["end"])
    if start == end:
        raise ValueError(f"an object is moved to where it is: {text!r}")
    return Edit(Operation.MOVE, ((start, NOTHING), (end, OBJECTS.index(found["moved_object"]))))


_PLACE = "|".join(PLACES)
_OBJECT = "|".join(OBJECTS)
INSTRUCTION: Final = re.compile(
    rf"make the background (?P<ground>{'|'.join(BACKGROUNDS)})"
    rf"|make the (?P<recolored>{_PLACE}) (?P<recolored_object>{_OBJECT}) (?P<colour>{'|'.join(COLOURS)})"
    rf"|remove the (?P<removed>{_PLACE}) (?:{_OBJECT})"
    rf"|add a (?P<added_object>{_OBJECT}) at the (?P<added>{_PLACE})"
    rf"|move the (?P<start>{_PLACE}) (?P<moved_object>{_OBJECT}) to the (?P<end>{_PLACE})"
)
"""Every instruction of the world."""
