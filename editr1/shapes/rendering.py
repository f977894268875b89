"""Render scenes as RGB images of 32x32 pixels. Each of the four cells has 16x16 pixels and at most one object."""

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
"""One image as uint8 (32, 32, 3), or n images as uint8 (n, 32, 32, 3)."""

CELL: Final = 16
"""Side length of a cell in pixels."""
SIDE: Final = 2 * CELL
"""Side length of an image in pixels."""
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


def render(scene: Scene) -> Pixels:
    """Render a scene as an image, uint8 (32, 32, 3)."""
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    for place in range(CELLS):
        image[cell_window(place)] = templates()[scene.background, scene.cells[place]]
    return image


def cell_window(place: int) -> tuple[slice, slice]:
    """Return the rows and columns of the image that belong to a cell, as slices."""
    row, column = divmod(place, 2)
    return slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)


@cache
def templates() -> Pixels:
    """Return the images of all possible cells: 4 backgrounds with 16 contents each.

    The result is a read-only uint8 array with the shape (4, 16, 16, 16, 3).
    """
    cells = np.empty((len(BACKGROUNDS), NOTHING + 1, CELL, CELL, 3), np.uint8)
    masks = [_mask(shape)[..., None] for shape in SHAPES]
    for background, name in enumerate(BACKGROUNDS):
        base = np.asarray(BACKGROUND_VALUES[name], np.float64)
        cells[background, NOTHING] = base
        for content in range(NOTHING):
            colour, shape = divmod(content, len(SHAPES))
            ink = np.asarray(COLOUR_VALUES[COLOURS[colour]], np.float64)
            cells[background, content] = np.rint(base + masks[shape] * (ink - base))
    cells.flags.writeable = False
    return cells


def to_encoded_image(pixels: Pixels) -> EncodedImage:
    """Encode one image, uint8 (h, w, 3), as PNG."""
    return EncodedImage(data=encode_png(Image.fromarray(pixels)))


def _mask(shape: str) -> NDArray[np.float64]:
    """Return the fraction of each pixel that the shape covers, for the 16 x 16 pixels of a cell."""
    axis = (np.arange(CELL * _OVERSAMPLE) + 0.5) / _OVERSAMPLE - CELL / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if shape == "square":
        inside = (np.abs(x) < 6) & (np.abs(y) < 6)
    elif shape == "circle":
        inside = x**2 + y**2 < 5.3**2
    else:
        inside = (y > -6) & (y < 6) & (np.abs(x) < (y + 6) / 2)
    return np.asarray(inside.reshape(CELL, _OVERSAMPLE, CELL, _OVERSAMPLE).mean(axis=(1, 3)))
