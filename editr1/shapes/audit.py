"""Agreement of what is read from pictures with the generator's own record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from editr1.seeding import stream_rng
from editr1.shapes.drawing import Pixels, draw
from editr1.shapes.faults import PIXEL_FAULTS
from editr1.shapes.perception import editor_like
from editr1.shapes.scene import random_scene
from editr1.shapes.truth import read_pictures


class Agreement(NamedTuple):
    """Shares of one kind of picture."""

    scenes: float
    """Pictures whose four cells and background are all read as drawn."""
    cells: float
    """Cells read as drawn."""
    grounds: float
    """Backgrounds read as drawn."""
    clean: float
    """Pictures read as clean."""
    n: int
    """Pictures."""


def audit(n: int, seed: int) -> dict[str, Agreement]:
    """Read ``n`` drawn scenes as they are, as an editor leaves them, noisy, framed and blurred.

    Half blends are not here: what a blend shows has no record.
    """
    rng = stream_rng(seed, 3)
    scenes = [random_scene(rng, (0, 1, 2, 3, 4)) for _ in range(n)]
    drawn = np.stack([draw(scene) for scene in scenes])
    cells, grounds = np.array([scene.cells for scene in scenes]), np.array([scene.ground for scene in scenes])
    report = {}
    for name, change in _CHANGES.items():
        read = read_pictures(np.stack([change(picture, rng) for picture in drawn]))
        same_cells, same_grounds = read.cells == cells, read.grounds == grounds
        report[name] = Agreement(
            scenes=float((same_cells.all(axis=1) & same_grounds).mean()),
            cells=float(same_cells.mean()),
            grounds=float(same_grounds.mean()),
            clean=float(read.clean.mean()),
            n=n,
        )
    return report


def _fault(name: str) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda picture, rng: PIXEL_FAULTS[name](picture, picture, rng)


_CHANGES: Final[dict[str, Callable[[Pixels, np.random.Generator], Pixels]]] = {
    "drawn": lambda picture, rng: picture,
    "editor": editor_like,
    "noise": _fault("noise"),
    "border": _fault("border"),
    "blur": _fault("blur"),
}
