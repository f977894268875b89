"""Measure how often ``editr1.shapes.truth`` determines the content of rendered and degraded images correctly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from editr1.seeding import stream_rng
from editr1.shapes.faults import PIXEL_FAULTS
from editr1.shapes.perception import editor_like
from editr1.shapes.rendering import Pixels, render
from editr1.shapes.scene import random_scene
from editr1.shapes.truth import read_images


class Agreement(NamedTuple):
    """Accuracy of the content that is read from images of one kind. Fractions are in [0, 1]."""

    scenes: float
    """Fraction of images for which all four cells and the background were read correctly."""
    cells: float
    """Fraction of cells whose content was read correctly."""
    backgrounds: float
    """Fraction of images whose background was read correctly."""
    clean: float
    """Fraction of images that were classified as clean, that is, as free of visible damage."""
    n: int
    """Number of images that were read."""


def measure_agreement(n: int, seed: int) -> dict[str, Agreement]:
    """Render ``n`` random scenes as images of several kinds, read the images, and compare the results with the scenes.

    The result maps each kind of image to its accuracy. The kinds are "drawn" (images as rendered), "editor" (with the
    artifacts of an autoencoder), "noise", "border" and "blur". Blends of two images are omitted, because their correct
    content is not defined.
    """
    rng = stream_rng(seed, 3)
    scenes = [random_scene(rng, (0, 1, 2, 3, 4)) for _ in range(n)]
    rendered = np.stack([render(scene) for scene in scenes])
    cells, backgrounds = np.array([scene.cells for scene in scenes]), np.array([scene.background for scene in scenes])
    report = {}
    for name, change in _CHANGES.items():
        read = read_images(np.stack([change(image, rng) for image in rendered]))
        same_cells, same_backgrounds = read.cells == cells, read.backgrounds == backgrounds
        report[name] = Agreement(
            scenes=float((same_cells.all(axis=1) & same_backgrounds).mean()),
            cells=float(same_cells.mean()),
            backgrounds=float(same_backgrounds.mean()),
            clean=float(read.clean.mean()),
            n=n,
        )
    return report


def _fault(name: str) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda image, rng: PIXEL_FAULTS[name](image, image, rng)


_CHANGES: Final[dict[str, Callable[[Pixels, np.random.Generator], Pixels]]] = {
    "drawn": lambda image, rng: image,
    "editor": editor_like,
    "noise": _fault("noise"),
    "border": _fault("border"),
    "blur": _fault("blur"),
}
