"""Scenes of the shapes dataset: four cells, each with an object or empty, on one background."""

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
    """The content of one image."""

    cells: tuple[int, int, int, int]
    """``cells[k]`` is the content at ``vocabulary.PLACES[k]``, an index into ``vocabulary.CONTENTS``."""
    background: int
    """Index into ``vocabulary.BACKGROUNDS``."""

    def with_cell(self, place: int, content: int) -> Scene:
        """Return the scene with the content of one cell replaced."""
        cells = list(self.cells)
        cells[place] = content
        return replace(self, cells=(cells[0], cells[1], cells[2], cells[3]))

    def with_background(self, background: int) -> Scene:
        """Return the scene with the background replaced."""
        return replace(self, background=background)

    @property
    def filled(self) -> tuple[int, ...]:
        """Places with an object."""
        return tuple(place for place, content in enumerate(self.cells) if content != NOTHING)

    @property
    def empty(self) -> tuple[int, ...]:
        """Empty places."""
        return tuple(place for place, content in enumerate(self.cells) if content == NOTHING)

    def __str__(self) -> str:
        return f"{', '.join(CONTENTS[content] for content in self.cells)} on {BACKGROUNDS[self.background]}"


def random_scene(rng: np.random.Generator, objects: tuple[int, ...] = (2, 3)) -> Scene:
    """Return a random scene. The number of objects is drawn from ``objects``; contents and places are uniform."""
    cells = [NOTHING] * CELLS
    for place in rng.permutation(CELLS)[: int(rng.choice(objects))]:
        cells[int(place)] = int(rng.integers(len(OBJECTS)))
    return Scene((cells[0], cells[1], cells[2], cells[3]), int(rng.integers(len(BACKGROUNDS))))


def similar_object(content: int, rng: np.random.Generator) -> int:
    """Return a random object that differs from object ``content`` in either colour or shape."""
    colour, shape = divmod(content, len(SHAPES))
    if rng.random() < 0.5:
        return different_value(colour, len(COLOURS), rng) * len(SHAPES) + shape
    return colour * len(SHAPES) + different_value(shape, len(SHAPES), rng)


def different_value(value: int, count: int, rng: np.random.Generator) -> int:
    """Draw uniformly from the values of ``range(count)`` other than ``value``."""
    return int((value + rng.integers(1, count)) % count)
