"""The ground truth of any image, read from its pixels: the content of each cell, the background, and whether it is clean.

Each cell is matched to its nearest template, with one background for the whole image. The root mean square of the
residual determines whether the cell is clean. Generated edits and the edits of a trained editor are scored in this way.
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
"""An image is clean if the rms residual of every cell is below this fraction of full scale."""


@dataclass(frozen=True)
class Reading:
    """The scene that was read from one image, and the residuals."""

    scene: Scene
    residuals: tuple[float, float, float, float]
    """rms distance of each cell from its template, in [0, 1]."""

    @property
    def clean(self) -> bool:
        """Whether the residual of every cell is below :data:`CLEAN_RESIDUAL`."""
        return max(self.residuals) < CLEAN_RESIDUAL


class Readings(NamedTuple):
    """Readings of n images as arrays."""

    cells: NDArray[np.int64]
    """Indices into ``vocabulary.CONTENTS``, (n, 4)."""
    backgrounds: NDArray[np.int64]
    """Indices into ``vocabulary.BACKGROUNDS``, (n,)."""
    residuals: NDArray[np.float32]
    """rms distance of each cell from its template in [0, 1], (n, 4)."""

    def at(self, index: int) -> Reading:
        """Return the reading of one image."""
        a, b, c, d = (int(content) for content in self.cells[index])
        w, x, y, z = (float(residual) for residual in self.residuals[index])
        return Reading(Scene((a, b, c, d), int(self.backgrounds[index])), (w, x, y, z))

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Whether each image is clean, (n,)."""
        return np.asarray(self.residuals.max(axis=1) < CLEAN_RESIDUAL)


@dataclass(frozen=True)
class TrueScore:
    """The score of an edit by the rubric (see :func:`rubric`)."""

    score: float
    """Score in [0, 10]."""
    follow: float
    """Fraction of follow principles that hold."""
    keep: float
    """Fraction of keep principles that hold."""
    quality: float
    """Fraction of quality principles that hold."""
    verdicts: tuple[int, ...]
    """0/1 per principle, aligned with ``Edit.principles()``."""


def read_images(pixels: NDArray[Any]) -> Readings:
    """Read n images of shape (n, 32, 32, 3), uint8 or floating point in [0, 1]. Raises ValueError for other arrays."""
    if pixels.ndim != 4 or pixels.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"images must have shape (n, {SIDE}, {SIDE}, 3), not {pixels.shape}")
    if pixels.dtype != np.uint8 and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"images must be uint8 or floating point in [0, 1], not {pixels.dtype}")
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
    """Read one image of any size; it is resized to 32x32."""
    return read_images(as_pixels(image)[None]).at(0)


def as_pixels(image: Image.Image | Pixels | EncodedImage) -> Pixels:
    """Return an image as uint8 (32, 32, 3), resized if necessary."""
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
    """Score one edit from its pixels. Raises ValueError if the instruction is not one of the shapes dataset."""
    before = source if isinstance(source, Reading) else read_image(source)
    return score_reading(before.scene, parse_instruction(instruction), read_image(edited))


def true_scores(sources: NDArray[Any], instructions: Sequence[str], edited: NDArray[Any]) -> list[TrueScore]:
    """Score n edits at once. The arrays of images have the form that :func:`read_images` accepts."""
    before, after = read_images(sources), read_images(edited)
    return [
        score_reading(before.at(index).scene, parse_instruction(instruction), after.at(index))
        for index, instruction in enumerate(instructions)
    ]


def score_reading(before: Scene, edit: Edit, after: Reading) -> TrueScore:
    """Apply the rubric to the reading of an edited image."""
    return score_verdicts(edit, verdicts(before, edit, after))


def verdicts(before: Scene, edit: Edit, after: Reading) -> tuple[int, ...]:
    """Return the true 0/1 answer for each of ``edit.principles()``."""
    now = (*after.scene.cells, after.scene.background)
    was = (*before.cells, before.background)
    follow = [int(now[place] == content) for place, content in edit.targets]
    keep = [int(now[place] == was[place]) for place in range(BACKGROUND_PLACE + 1) if place not in edit.touched]
    return (*follow, *keep, int(after.clean))


def score_verdicts(edit: Edit, bits: Sequence[int]) -> TrueScore:
    """Apply the rubric to 0/1 verdicts, aligned with ``edit.principles()``."""
    count = len(edit.targets)
    follow = sum(bits[:count]) / count
    kept = bits[count:-1]
    score = rubric(follow, len(kept) - sum(kept), bits[-1])
    return TrueScore(score, follow, sum(kept) / len(kept), float(bits[-1]), tuple(bits))


def rubric(follow: float, keep_faults: int, quality: float) -> float:
    """Return 5 ``follow`` + max(0, 3 - 1.5 ``keep_faults``) + 2 ``quality``, but at most 4 if ``follow`` is 0.

    ``follow`` and ``quality`` are fractions in [0, 1]; the result is in [0, 10].
    """
    score = 5 * follow + max(0.0, 3 - 1.5 * keep_faults) + 2 * quality
    return score if follow > 0 else min(score, 4.0)


def rubric_from_categories(categories: Sequence[Category], bits: Sequence[int]) -> float:
    """Apply the rubric to the verdicts of any list of principles. A category without principles counts as fulfilled.

    Returns a score in [0, 10].
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
    """Return the squared distances of cells (n, 4, 768) to templates (4 cells, 768, 64).

    The result has the shape (n, 4 cells, 4 backgrounds, 16 contents).
    """
    squares = (flat**2).sum(axis=2).T[..., None] - 2 * (flat.transpose(1, 0, 2) @ matrix) + norms
    by_cell = squares.transpose(1, 0, 2).reshape(len(flat), CELLS, len(BACKGROUNDS), len(CONTENTS))
    return np.asarray(by_cell, np.float32)


@cache
def _template_matrix(inside: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the templates (4 cells, 768, 64) in [0, 1] with their squared norms (4, 1, 64).

    The last axis enumerates backgrounds and, within each background, contents.
    """
    flat = (templates().astype(np.float32) / 255).reshape(1, len(BACKGROUNDS) * len(CONTENTS), -1)
    flat = flat * _inside_mask()[:, None] if inside else np.repeat(flat, CELLS, axis=0)
    return np.ascontiguousarray(flat.transpose(0, 2, 1)), (flat**2).sum(axis=2)[:, None]


@cache
def _inside_mask() -> NDArray[np.float32]:
    """Return a mask (4 cells, 768) that is 0 on the outermost pixels of the image and 1 elsewhere.

    A border may cover these pixels, and no object extends to them.
    """
    mask = np.zeros((SIDE, SIDE, 3), np.float32)
    mask[1:-1, 1:-1] = 1
    return np.stack([mask[cell_window(place)].reshape(-1) for place in range(CELLS)])
