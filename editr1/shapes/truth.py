"""Truth of any picture, read from its pixels: what each cell holds, the background, and how far it is off the drawing.

Each cell is matched to its nearest template, with one background for the whole picture; the root mean square of what
is left over tells whether the cell is clean. The same reading scores any edit, so that a picture made by an editor is
judged by the rule that judges the world's own candidates.
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
from editr1.shapes.drawing import CELL, SIDE, Pixels, cell_window, templates
from editr1.shapes.edits import GROUND_PLACE, Edit, parse_instruction
from editr1.shapes.scene import CELLS, Scene
from editr1.shapes.vocabulary import BACKGROUNDS, CONTENTS

CLEAN_RESIDUAL: Final = 0.09
"""A picture is clean when every cell's residual rms is below this share of full scale."""


@dataclass(frozen=True)
class Reading:
    """What is seen in one picture; ``residuals[k]`` in [0, 1] is cell k's rms distance from its template."""

    scene: Scene
    residuals: tuple[float, float, float, float]

    @property
    def clean(self) -> bool:
        """Every cell's residual is below :data:`CLEAN_RESIDUAL`."""
        return max(self.residuals) < CLEAN_RESIDUAL


class Readings(NamedTuple):
    """Readings of n pictures as arrays."""

    cells: NDArray[np.int64]
    """(n, 4), indexes of ``vocabulary.CONTENTS``."""
    grounds: NDArray[np.int64]
    """(n,), indexes of ``vocabulary.BACKGROUNDS``."""
    residuals: NDArray[np.float32]
    """(n, 4), rms in [0, 1]."""

    def at(self, index: int) -> Reading:
        """One picture's reading."""
        a, b, c, d = (int(content) for content in self.cells[index])
        w, x, y, z = (float(residual) for residual in self.residuals[index])
        return Reading(Scene((a, b, c, d), int(self.grounds[index])), (w, x, y, z))

    @property
    def clean(self) -> NDArray[np.bool_]:
        """(n,), whether each picture is clean."""
        return np.asarray(self.residuals.max(axis=1) < CLEAN_RESIDUAL)


@dataclass(frozen=True)
class TrueScore:
    """The rubric's mark of an edit: 5 x follow + (3 - 1.5 a keep fault, not under 0) + 2 x quality; at most 4 when follow is 0."""

    score: float
    """In [0, 10]."""
    follow: float
    """Share of follow principles that hold."""
    keep: float
    """Share of keep principles that hold."""
    quality: float
    """Share of quality principles that hold."""
    verdicts: tuple[int, ...]
    """0/1, aligned with ``Edit.principles()``."""


def read_pictures(pixels: NDArray[Any]) -> Readings:
    """Read n pictures at once: (n, 32, 32, 3), uint8, or floating point in [0, 1]. Raises ``ValueError`` otherwise."""
    if pixels.ndim != 4 or pixels.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"pictures must have shape (n, {SIDE}, {SIDE}, 3), not {pixels.shape}")
    if pixels.dtype != np.uint8 and not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"pictures must be uint8 or floating point in [0, 1], not {pixels.dtype}")
    values = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        values /= 255
    flat = values.reshape(-1, 2, CELL, 2, CELL, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, CELLS, CELL * CELL * 3)
    grounds = _distances(flat * _inside(), *_known(inside=True)).min(axis=3).sum(axis=1).argmin(axis=1)
    distances = _distances(flat, *_known(inside=False))
    chosen = np.take_along_axis(distances, grounds[:, None, None, None], axis=2)[:, :, 0]
    left = np.maximum(chosen.min(axis=2), 0)
    return Readings(chosen.argmin(axis=2), grounds, np.sqrt(left / flat.shape[-1]))


def read_picture(image: Image.Image | Pixels | EncodedImage) -> Reading:
    """Read one picture of any size (resized to 32x32 when it differs)."""
    return read_pictures(as_pixels(image)[None]).at(0)


def as_pixels(image: Image.Image | Pixels | EncodedImage) -> Pixels:
    """A picture as uint8 (32, 32, 3)."""
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
    """Score one edit by its pixels. Raises ``ValueError`` for an instruction that is not of the world's grammar."""
    before = source if isinstance(source, Reading) else read_picture(source)
    return judge(before.scene, parse_instruction(instruction), read_picture(edited))


def true_scores(sources: NDArray[Any], instructions: Sequence[str], edited: NDArray[Any]) -> list[TrueScore]:
    """Score n edits at once; pictures as for :func:`read_pictures`."""
    before, after = read_pictures(sources), read_pictures(edited)
    return [
        judge(before.at(index).scene, parse_instruction(instruction), after.at(index))
        for index, instruction in enumerate(instructions)
    ]


def judge(before: Scene, edit: Edit, after: Reading) -> TrueScore:
    """The rubric on readings."""
    return mark(edit, verdicts(before, edit, after))


def verdicts(before: Scene, edit: Edit, after: Reading) -> tuple[int, ...]:
    """0/1 for each of ``edit.principles()``."""
    held = (*after.scene.cells, after.scene.ground)
    had = (*before.cells, before.ground)
    follow = [int(held[place] == content) for place, content in edit.wanted]
    keep = [int(held[place] == had[place]) for place in range(GROUND_PLACE + 1) if place not in edit.touched]
    return (*follow, *keep, int(after.clean))


def mark(edit: Edit, bits: Sequence[int]) -> TrueScore:
    """The rubric on 0/1 verdicts aligned with ``edit.principles()``."""
    wanted = len(edit.wanted)
    follow = sum(bits[:wanted]) / wanted
    kept = bits[wanted:-1]
    score = rubric(follow, len(kept) - sum(kept), bits[-1])
    return TrueScore(score, follow, sum(kept) / len(kept), float(bits[-1]), tuple(bits))


def rubric(follow: float, keep_faults: int, quality: float) -> float:
    """5 x ``follow`` + max(0, 3 - 1.5 x ``keep_faults``) + 2 x ``quality``, at most 4 when ``follow`` is 0; in [0, 10]."""
    score = 5 * follow + max(0.0, 3 - 1.5 * keep_faults) + 2 * quality
    return score if follow > 0 else min(score, 4.0)


def rubric_from_categories(categories: Sequence[Category], bits: Sequence[int]) -> float:
    """The rubric on verdicts of any list of principles; a category that is absent counts as held."""
    by = {kind: [bit for bit, own in zip(bits, categories, strict=True) if own is kind] for kind in Category}
    share = {kind: sum(own) / len(own) if own else 1.0 for kind, own in by.items()}
    keep = by[Category.KEEP]
    return rubric(share[Category.FOLLOW], len(keep) - sum(keep), share[Category.QUALITY])


def _distances(
    flat: NDArray[np.float32], known: NDArray[np.float32], norms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squared distances (n, 4 cells, 4 backgrounds, 16 contents) of cells (n, 4, 768) to templates (4 cells, 768, 64)."""
    squares = (flat**2).sum(axis=2).T[..., None] - 2 * (flat.transpose(1, 0, 2) @ known) + norms
    by_cell = squares.transpose(1, 0, 2).reshape(len(flat), CELLS, len(BACKGROUNDS), len(CONTENTS))
    return np.asarray(by_cell, np.float32)


@cache
def _known(inside: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Templates (4 cells, 768, 64) in [0, 1], backgrounds outer, and their squared norms (4, 1, 64)."""
    flat = (templates().astype(np.float32) / 255).reshape(1, len(BACKGROUNDS) * len(CONTENTS), -1)
    flat = flat * _inside()[:, None] if inside else np.repeat(flat, CELLS, axis=0)
    return np.ascontiguousarray(flat.transpose(0, 2, 1)), (flat**2).sum(axis=2)[:, None]


@cache
def _inside() -> NDArray[np.float32]:
    """(4 cells, 768): 0 on the picture's outermost pixels, which a frame may cover, 1 elsewhere; no object is there."""
    mask = np.zeros((SIDE, SIDE, 3), np.float32)
    mask[1:-1, 1:-1] = 1
    return np.stack([mask[cell_window(place)].reshape(-1) for place in range(CELLS)])
