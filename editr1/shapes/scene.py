"""Scenes of the shapes world: four cells that hold an object or nothing, over one background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from editr1.shapes.vocabulary import BACKGROUNDS, COLOURS, CONTENTS, OBJECTS, SHAPES

NOTHING: Final = len(OBJECTS)
"""Content index of an empty cell."""
CELLS: Final = 4


@dataclass(frozen=True)
class Scene:
    """``cells[k]`` indexes ``vocabulary.CONTENTS`` for ``vocabulary.PLACES[k]``, ``ground`` indexes ``BACKGROUNDS``."""

    cells: tuple[int, int, int, int]
    ground: int

    def with_cell(self, place: int, content: int) -> Scene:
        """The scene with one cell's content exchanged."""
        cells = list(self.cells)
        cells[place] = content
        return replace(self, cells=(cells[0], cells[1], cells[2], cells[3]))

    def with_ground(self, ground: int) -> Scene:
        """The scene over another background."""
        return replace(self, ground=ground)

    @property
    def filled(self) -> tuple[int, ...]:
        """Places that hold an object."""
        return tuple(place for place, content in enumerate(self.cells) if content != NOTHING)

    @property
    def empty(self) -> tuple[int, ...]:
        """Places that hold nothing."""
        return tuple(place for place, content in enumerate(self.cells) if content == NOTHING)

    def __str__(self) -> str:
        return f"{', '.join(CONTENTS[content] for content in self.cells)} on {BACKGROUNDS[self.ground]}"


def random_scene(rng: np.random.Generator, objects: tuple[int, ...] = (2, 3)) -> Scene:
    """A scene with a number of objects drawn from ``objects``, contents and places uniform."""
    cells = [NOTHING] * CELLS
    for place in rng.permutation(CELLS)[: int(rng.choice(objects))]:
        cells[int(place)] = int(rng.integers(len(OBJECTS)))
    return Scene((cells[0], cells[1], cells[2], cells[3]), int(rng.integers(len(BACKGROUNDS))))


def near_object(content: int, rng: np.random.Generator) -> int:
    """An object that differs from object ``content`` in colour or in shape, not in both."""
    colour, shape = divmod(content, len(SHAPES))
    if rng.random() < 0.5:
        return other(colour, len(COLOURS), rng) * len(SHAPES) + shape
    return colour * len(SHAPES) + other(shape, len(SHAPES), rng)


def other(value: int, count: int, rng: np.random.Generator) -> int:
    """A value of ``range(count)`` other than ``value``, uniform."""
    return int((value + rng.integers(1, count)) % count)
