"""Generate the training data of the base editor, from which RL starts.

The VAE is trained on single images, and the flow transformer on source images with perfect and faulty edits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from editr1.seeding import derive_rng
from editr1.shapes.cases import generate_case
from editr1.shapes.edits import Edit
from editr1.shapes.faults import PERFECT, PIXEL_FAULTS, apply_with_faults
from editr1.shapes.rendering import Pixels, cell_window, render
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
"""Probability of each kind of fault in a faulty edit. If a kind is not possible for a case, another kind is drawn."""
DEGRADED_FRACTION: Final = 0.22
"""Fraction of the VAE's training images that are degraded: with a blend, noise, blur, a border, or one blended cell."""


@dataclass(frozen=True)
class EditRows:
    """Source images, each with an instruction, a perfect edit and a faulty edit. Image tensors are uint8 (n, 3, 32, 32)."""

    sources: Tensor
    perfect: Tensor
    faulty: Tensor
    instructions: list[str]


def vae_images(n: int, seed: int) -> Tensor:
    """Return ``n`` images with 0 to 4 objects, uint8 (n, 3, 32, 32).

    About 22 % (``DEGRADED_FRACTION``) of them are degraded.
    """
    return _to_tensor([_vae_image(derive_rng("vae", seed, index)) for index in range(n)])


def edit_rows(n: int, seed: int) -> EditRows:
    """Generate ``n`` source images and their edits, independently of the cases that ``cases.generate_cases`` returns."""
    sources, perfect, faulty, instructions = [], [], [], []
    for index in range(n):
        rng = derive_rng("base-editor", seed, index)
        scene, instruction, edit = generate_case(rng)
        perfect_edit = apply_with_faults((PERFECT,), scene, edit, rng)
        assert perfect_edit is not None
        sources.append(render(scene))
        perfect.append(perfect_edit[1])
        faulty.append(_faulty(scene, edit, rng))
        instructions.append(instruction)
    return EditRows(_to_tensor(sources), _to_tensor(perfect), _to_tensor(faulty), instructions)


def _faulty(scene: Scene, edit: Edit, rng: np.random.Generator) -> Pixels:
    names, weights = list(FAULT_WEIGHTS), np.asarray(list(FAULT_WEIGHTS.values()))
    while True:
        made = apply_with_faults((str(rng.choice(names, p=weights / weights.sum())),), scene, edit, rng)
        if made is not None:
            return made[1]


def _vae_image(rng: np.random.Generator) -> Pixels:
    image = render(random_scene(rng, objects=(0, 1, 2, 3, 4)))
    if rng.random() >= DEGRADED_FRACTION:
        return image
    other = render(random_scene(rng, objects=(0, 1, 2, 3, 4)))
    kind = str(rng.choice([*PIXEL_FAULTS, "blended_cell"]))
    if kind in PIXEL_FAULTS:
        return PIXEL_FAULTS[kind](other, image, rng)
    window = cell_window(int(rng.integers(CELLS)))
    image[window] = PIXEL_FAULTS["partial"](other, image, rng)[window]
    return image


def _to_tensor(images: list[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
