"""Read the content of an image from its pixels, and compute the ground-truth score of an edit.

The content of an image is the object in each of its four cells, and the background. It is found by comparing each
cell with templates, the images of all possible cells. An image is clean if each of its cells is similar enough to the
nearest template. An image with noise, blur or a border, or a blend of two images, is not clean. Only the pixels are
used, so candidates of the shapes dataset and outputs of arbitrary editors can be scored in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editr1.data.images import decode_image
from editr1.data.types import Category, EncodedImage
from editr1.shapes.edits import BACKGROUND_PLACE, Edit, parse_instruction
from editr1.shapes.rendering import CELL, SIDE, Pixels, cell_window, templates
from editr1.shapes.scene import CELLS, Scene
from editr1.shapes.vocabulary import BACKGROUNDS, CONTENTS

CLEAN_RESIDUAL: Final = 0.09
"""Limit for the root mean square distance of a cell from its nearest template. An image is clean if all of its cells
are below this limit."""


@dataclass(frozen=True)
class Reading:
    """The content read from one image: its scene, and the distance of each cell from the nearest template."""

    scene: Scene
    residuals: tuple[float, float, float, float]
    """Root mean square distance of each cell from its nearest template, in [0, 1]."""

    @property
    def clean(self) -> bool:
        """True if the residual of every cell is below :data:`CLEAN_RESIDUAL`."""
        return max(self.residuals) < CLEAN_RESIDUAL


class Readings(NamedTuple):
    """The content read from n images. Each field is an array with one entry per image."""

    cells: NDArray[np.int64]
    """Contents of the cells, (n, 4), as indices into ``vocabulary.CONTENTS``."""
    backgrounds: NDArray[np.int64]
    """Backgrounds, (n,), as indices into ``vocabulary.BACKGROUNDS``."""
    residuals: NDArray[np.float32]
    """Root mean square distances of the cells from their nearest templates, (n, 4), in [0, 1]."""

    def at(self, index: int) -> Reading:
        """Return the content read from the image with this index."""
        a, b, c, d = (int(content) for content in self.cells[index])
        w, x, y, z = (float(residual) for residual in self.residuals[index])
        return Reading(Scene((a, b, c, d), int(self.backgrounds[index])), (w, x, y, z))

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Whether each image is clean, as a boolean array (n,)."""
        return np.asarray(self.residuals.max(axis=1) < CLEAN_RESIDUAL)


@dataclass(frozen=True)
class TrueScore:
    """The ground-truth score of an edit. It is computed with :func:`rubric` from the content of the images."""

    score: float
    """Ground-truth score, in [0, 10]."""
    follow: float
    """Fraction of the follow principles that are fulfilled."""
    keep: float
    """Fraction of the keep principles that are fulfilled."""
    quality: float
    """Fraction of the quality principles that are fulfilled."""
    verdicts: tuple[int, ...]
    """The correct answers, 0 or 1, to the questions of ``Edit.principles()``, in the same order."""


def read_images(pixels: NDArray[Any]) -> Readings:
    """Read the content of n images, given as an array (n, 32, 32, 3) of uint8 or of floating point in [0, 1].

    Raises:
        ValueError: the array has a different shape or type.
    """
    if pixels.ndim != 4 or pixels.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images: {pixels.shape}: the shape must be (n, {SIDE}, {SIDE}, 3)")
    if pixels.dtype != np.uint8 and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"images: {pixels.dtype}: the type must be uint8, or floating point with values in [0, 1]")
    values = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        values /= 255
    flat = values.reshape(-1, 2, CELL, 2, CELL, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, CELLS, CELL * CELL * 3)
    backgrounds = (
        _distances(flat * _inside_mask(), *_template_matrix(inside=True)).min(axis=3).sum(axis=1).argmin(axis=1)
    )
    distances = _distances(flat, *_template_matrix(inside=False))
    chosen = np.take_along_axis(distances, backgrounds[:, None, None, None], axis=2)[:, :, 0]
    residuals = np.maximum(chosen.min(axis=2), 0)
    return Readings(chosen.argmin(axis=2), backgrounds, np.sqrt(residuals / flat.shape[-1]))


def read_image(image: Image.Image | Pixels | EncodedImage) -> Reading:
    """Read the content of one image, which is first resized to 32x32 pixels."""
    return read_images(as_pixels(image)[None]).at(0)


def as_pixels(image: Image.Image | Pixels | EncodedImage) -> Pixels:
    """Convert an image to an array, uint8 (32, 32, 3). It is resized if necessary."""
    if isinstance(image, np.ndarray):
        if image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8:
            return image
        image = Image.fromarray(image)
    elif isinstance(image, EncodedImage):
        image = decode_image(image.data)
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image.convert("RGB"))


def true_score(
    source: Image.Image | Pixels | EncodedImage | Reading, instruction: str, edited: Image.Image | Pixels | EncodedImage
) -> TrueScore:
    """Return the ground-truth score of one edit.

    Raises:
        ValueError: the instruction does not belong to the shapes dataset.
    """
    before = source if isinstance(source, Reading) else read_image(source)
    return score_reading(before.scene, parse_instruction(instruction), read_image(edited))


def true_scores(sources: NDArray[Any], instructions: Sequence[str], edited: NDArray[Any]) -> list[TrueScore]:
    """Return the ground-truth scores of n edits. The images have the form that :func:`read_images` accepts."""
    before, after = read_images(sources), read_images(edited)
    return [
        score_reading(before.at(index).scene, parse_instruction(instruction), after.at(index))
        for index, instruction in enumerate(instructions)
    ]


def score_reading(before: Scene, edit: Edit, after: Reading) -> TrueScore:
    """Return the ground-truth score of an edit whose source image and edited image were already read."""
    return score_verdicts(edit, verdicts(before, edit, after))


def verdicts(before: Scene, edit: Edit, after: Reading) -> tuple[int, ...]:
    """Return the correct answers, 0 or 1, to the questions of ``edit.principles()``, in the same order."""
    now = (*after.scene.cells, after.scene.background)
    was = (*before.cells, before.background)
    follow = [int(now[place] == content) for place, content in edit.targets]
    keep = [int(now[place] == was[place]) for place in range(BACKGROUND_PLACE + 1) if place not in edit.touched]
    return (*follow, *keep, int(after.clean))


def score_verdicts(edit: Edit, bits: Sequence[int]) -> TrueScore:
    """Return the score of an edit. ``bits`` are the answers, 0 or 1, to the questions of ``edit.principles()``."""
    count = len(edit.targets)
    follow = sum(bits[:count]) / count
    kept = bits[count:-1]
    score = rubric(follow, len(kept) - sum(kept), bits[-1])
    return TrueScore(score, follow, sum(kept) / len(kept), float(bits[-1]), tuple(bits))


def rubric(follow: float, keep_faults: int, quality: float) -> float:
    """Return the score of an edit, in [0, 10], from the number of its principles that are fulfilled.

    The score is 5 ``follow`` + max(0, 3 - 1.5 ``keep_faults``) + 2 ``quality``, but at most 4 if ``follow`` is 0.
    ``follow`` and ``quality`` are fractions of fulfilled principles, and ``keep_faults`` is the number of keep principles
    that are not fulfilled.
    """
    score = 5 * follow + max(0.0, 3 - 1.5 * keep_faults) + 2 * quality
    return score if follow > 0 else min(score, 4.0)


def rubric_from_categories(categories: Sequence[Category], bits: Sequence[int]) -> float:
    """Return the score, in [0, 10], of an edit with any number of principles in any order.

    ``bits[i]`` is the verdict, 0 or 1, on a principle of the category ``categories[i]``. A category without principles
    counts as fulfilled.
    """
    by_category = {
        kind: [bit for bit, category in zip(bits, categories, strict=True) if category is kind] for kind in Category
    }
    fraction = {kind: sum(found) / len(found) if found else 1.0 for kind, found in by_category.items()}
    keep = by_category[Category.KEEP]
    return rubric(fraction[Category.FOLLOW], len(keep) - sum(keep), fraction[Category.QUALITY])


def _distances(
    flat: NDArray[np.float32], matrix: NDArray[np.float32], norms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the squared distances of the cells of n images from the templates.

    ``flat`` contains the cells and has the shape (n, 4, 768): n images, 4 cells, and 16 x 16 x 3 values per cell.
    ``matrix`` and ``norms`` are the result of ``_template_matrix``. The result has the shape (n, 4, 4, 16): n images, 4
    cells, 4 backgrounds and 16 contents.
    """
    squares = (flat**2).sum(axis=2).T[..., None] - 2 * (flat.transpose(1, 0, 2) @ matrix) + norms
    by_cell = squares.transpose(1, 0, 2).reshape(len(flat), CELLS, len(BACKGROUNDS), len(CONTENTS))
    return np.asarray(by_cell, np.float32)


@cache
def _template_matrix(inside: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the templates with values in [0, 1], and their squared norms.

    The templates have the shape (4, 768, 64): 4 cells, 16 x 16 x 3 values per cell, and 4 x 16 combinations of a background
    and a content, sorted by background. The norms have the shape (4, 1, 64). If ``inside`` is true, the values at the
    outermost pixels of the image are 0.
    """
    flat = (templates().astype(np.float32) / 255).reshape(1, len(BACKGROUNDS) * len(CONTENTS), -1)
    flat = flat * _inside_mask()[:, None] if inside else np.repeat(flat, CELLS, axis=0)
    return np.ascontiguousarray(flat.transpose(0, 2, 1)), (flat**2).sum(axis=2)[:, None]


@cache
def _inside_mask() -> NDArray[np.float32]:
    """Return a mask that is 0 at the outermost pixels of the image and 1 elsewhere.

    It has the shape (4, 768): 4 cells, and 16 x 16 x 3 values per cell. The outermost pixels never belong to an object, but
    the fault ``border`` changes them.
    """
    mask = np.zeros((SIDE, SIDE, 3), np.float32)
    mask[1:-1, 1:-1] = 1
    return np.stack([mask[cell_window(place)].reshape(-1) for place in range(CELLS)])
