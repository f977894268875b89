"""Drawing of scenes: 32x32 RGB, four cells of 16 pixels, one anti-aliased object at most a cell."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editr1.data.images import encode_png
from editr1.data.types import EncodedImage
from editr1.shapes.scene import CELLS, NOTHING, Scene
from editr1.shapes.vocabulary import BACKGROUNDS, COLOURS, SHAPES

Pixels = NDArray[np.uint8]
"""One picture, (32, 32, 3), or several, (n, 32, 32, 3)."""

CELL: Final = 16
"""Side of a cell in pixels."""
SIDE: Final = 2 * CELL
"""Side of a picture in pixels."""
COLOUR_VALUES: Final = {
    "red": (225, 30, 30),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 215, 50),
    "purple": (170, 45, 200),
}
BACKGROUND_VALUES: Final = {
    "white": (245, 245, 245),
    "grey": (180, 180, 180),
    "black": (25, 25, 25),
    "brown": (105, 65, 35),
}
_OVERSAMPLE: Final = 8


def draw(scene: Scene) -> Pixels:
    """The scene's picture, uint8 (32, 32, 3)."""
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    for place in range(CELLS):
        picture[cell_window(place)] = templates()[scene.ground, scene.cells[place]]
    return picture


def cell_window(place: int) -> tuple[slice, slice]:
    """Rows and columns of a cell."""
    row, column = divmod(place, 2)
    return slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)


@cache
def templates() -> Pixels:
    """Every cell picture: uint8 (4 backgrounds, 16 contents, 16, 16, 3). Shared: not to be written to."""
    cells = np.empty((len(BACKGROUNDS), NOTHING + 1, CELL, CELL, 3), np.uint8)
    masks = [_mask(shape)[..., None] for shape in SHAPES]
    for ground, name in enumerate(BACKGROUNDS):
        base = np.asarray(BACKGROUND_VALUES[name], np.float64)
        cells[ground, NOTHING] = base
        for content in range(NOTHING):
            colour, shape = divmod(content, len(SHAPES))
            ink = np.asarray(COLOUR_VALUES[COLOURS[colour]], np.float64)
            cells[ground, content] = np.rint(base + masks[shape] * (ink - base))
    cells.flags.writeable = False
    return cells


def to_picture(pixels: Pixels) -> EncodedImage:
    """PNG of one picture, uint8 (h, w, 3)."""
    return EncodedImage(data=encode_png(Image.fromarray(pixels)))


def _mask(shape: str) -> NDArray[np.float64]:
    """Coverage in [0, 1] of a cell's pixels, (16, 16)."""
    axis = (np.arange(CELL * _OVERSAMPLE) + 0.5) / _OVERSAMPLE - CELL / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if shape == "square":
        inside = (np.abs(x) < 6) & (np.abs(y) < 6)
    elif shape == "circle":
        inside = x**2 + y**2 < 5.3**2
    else:
        inside = (y > -6) & (y < 6) & (np.abs(x) < (y + 6) / 2)
    return np.asarray(inside.reshape(CELL, _OVERSAMPLE, CELL, _OVERSAMPLE).mean(axis=(1, 3)))
