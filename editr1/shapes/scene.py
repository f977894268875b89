"""The scenes of the shapes dataset. A scene has one background and four cells, and a cell has one object or is empty."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from editr1.shapes.vocabulary import BACKGROUNDS, COLOURS, CONTENTS, OBJECTS, SHAPES

NOTHING: Final = len(OBJECTS)
"""Index of the content "empty" in ``vocabulary.CONTENTS``."""
CELLS: Final = 4


@dataclass(frozen=True)
class Scene:
    """The content of one image: the objects in its cells, and its background."""

    cells: tuple[int, int, int, int]
    """``cells[k]`` is the content of the cell ``vocabulary.PLACES[k]``, as an index into ``vocabulary.CONTENTS``."""
    background: int
    """The background, as an index into ``vocabulary.BACKGROUNDS``."""

    def with_cell(self, place: int, content: int) -> Scene:
        """Return a copy of the scene in which the content of one cell is replaced."""
        cells = list(self.cells)
        cells[place] = content
        return replace(self, cells=(cells[0], cells[1], cells[2], cells[3]))

    def with_background(self, background: int) -> Scene:
        """Return a copy of the scene with the given background."""
        return replace(self, background=background)

    @property
    def filled(self) -> tuple[int, ...]:
        """Indices of the cells that contain an object."""
        return tuple(place for place, content in enumerate(self.cells) if content != NOTHING)

    @property
    def empty(self) -> tuple[int, ...]:
        """Indices of the empty cells."""
        return tuple(place for place, content in enumerate(self.cells) if content == NOTHING)

    def __str__(self) -> str:
        return f"{', '.join(CONTENTS[content] for content in self.cells)} on {BACKGROUNDS[self.background]}"


def random_scene(rng: np.random.Generator, objects: tuple[int, ...] = (2, 3)) -> Scene:
    """Return a random scene. The number of objects is drawn from ``objects``. All random choices are uniform."""
    cells = [NOTHING] * CELLS
    for place in rng.permutation(CELLS)[: int(rng.choice(objects))]:
        cells[int(place)] = int(rng.integers(len(OBJECTS)))
    return Scene((cells[0], cells[1], cells[2], cells[3]), int(rng.integers(len(BACKGROUNDS))))


def similar_object(content: int, rng: np.random.Generator) -> int:
    """Return the index of a random object that differs from the object ``content`` only in colour or only in shape."""
    colour, shape = divmod(content, len(SHAPES))
    if rng.random() < 0.5:
        return different_value(colour, len(COLOURS), rng) * len(SHAPES) + shape
    return colour * len(SHAPES) + different_value(shape, len(SHAPES), rng)


def different_value(value: int, count: int, rng: np.random.Generator) -> int:
    """Return a random value of ``range(count)`` other than ``value``. All other values are equally likely."""
    return int((value + rng.integers(1, count)) % count)
