"""Pictures for the base editor's training: what its VAE sees, and sources with good and faulty edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from editr1.seeding import derive_rng
from editr1.shapes.cases import draw_case
from editr1.shapes.drawing import Pixels, cell_window, draw
from editr1.shapes.edits import Edit
from editr1.shapes.faults import PERFECT, PIXEL_FAULTS, make_fault
from editr1.shapes.scene import CELLS, Scene, random_scene

FAULT_WEIGHTS: Final[Mapping[str, float]] = {
    "no_edit": 0.28,
    "wrong": 0.16,
    "leak": 0.12,
    "lost": 0.10,
    "extra": 0.08,
    "partial": 0.08,
    "ground_leak": 0.06,
    "noise": 0.04,
    "border": 0.04,
    "blur": 0.04,
}
"""Shares of the kinds of fault among the imperfect targets; a kind that a case does not allow is drawn again."""
OFF_TEMPLATE: Final = 0.22
"""Share of the VAE's pictures that are no drawing of a scene: blends, noise, blur, border, one blended cell."""


@dataclass(frozen=True)
class EditRows:
    """n sources with one perfect and one faulty edit each, uint8 (n, 3, 32, 32), and their instructions."""

    sources: Tensor
    perfect: Tensor
    faulty: Tensor
    instructions: list[str]


def vae_pictures(n: int, seed: int) -> Tensor:
    """Return n pictures, uint8 (n, 3, 32, 32), with none to four objects, a share of them off the templates."""
    return _to_tensor([_vae_picture(derive_rng("vae", seed, index)) for index in range(n)])


def edit_rows(n: int, seed: int) -> EditRows:
    """Return n cases with their targets; the stream is independent of that of ``cases.draw_cases``."""
    sources, perfect, faulty, instructions = [], [], [], []
    for index in range(n):
        rng = derive_rng("base-editor", seed, index)
        scene, instruction, edit = draw_case(rng)
        good = make_fault((PERFECT,), scene, edit, rng)
        assert good is not None
        sources.append(draw(scene))
        perfect.append(good[1])
        faulty.append(_faulty(scene, edit, rng))
        instructions.append(instruction)
    return EditRows(_to_tensor(sources), _to_tensor(perfect), _to_tensor(faulty), instructions)


def _faulty(scene: Scene, edit: Edit, rng: np.random.Generator) -> Pixels:
    names, weights = list(FAULT_WEIGHTS), np.asarray(list(FAULT_WEIGHTS.values()))
    while True:
        made = make_fault((str(rng.choice(names, p=weights / weights.sum())),), scene, edit, rng)
        if made is not None:
            return made[1]


def _vae_picture(rng: np.random.Generator) -> Pixels:
    picture = draw(random_scene(rng, objects=(0, 1, 2, 3, 4)))
    if rng.random() >= OFF_TEMPLATE:
        return picture
    other = draw(random_scene(rng, objects=(0, 1, 2, 3, 4)))
    kind = str(rng.choice([*PIXEL_FAULTS, "blended_cell"]))
    if kind in PIXEL_FAULTS:
        return PIXEL_FAULTS[kind](other, picture, rng)
    window = cell_window(int(rng.integers(CELLS)))
    picture[window] = PIXEL_FAULTS["partial"](other, picture, rng)[window]
    return picture


def _to_tensor(pictures: list[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
