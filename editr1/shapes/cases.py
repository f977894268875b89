"""Generate edit cases of the shapes dataset: a source image, an instruction and its principles."""

from __future__ import annotations

import numpy as np

from editr1.data.types import EditCase, Principle
from editr1.seeding import derive_rng
from editr1.shapes.edits import Edit, parse_instruction, random_edit
from editr1.shapes.rendering import render, to_encoded_image
from editr1.shapes.scene import Scene, random_scene


def generate_cases(n: int, seed: int, prefix: str = "case", *, with_principles: bool = False) -> list[EditCase]:
    """Generate ``n`` cases with the ids ``{prefix}-{seed}-{index}``.

    A case depends only on ``prefix``, ``seed`` and its index. Cases with different ``prefix`` or ``seed`` are independent.
    """
    return [
        _case(f"{prefix}-{seed}-{index}", derive_rng("case", prefix, seed, index), with_principles)
        for index in range(n)
    ]


def generate_case(rng: np.random.Generator) -> tuple[Scene, str, Edit]:
    """Generate a source scene and an instruction for it. Return the scene, the instruction, and the parsed instruction."""
    scene = random_scene(rng)
    return scene, *random_edit(scene, rng)


def principles_for(instruction: str) -> tuple[Principle, ...]:
    """Return the six principles of an instruction. Raise ValueError if it does not belong to the shapes dataset."""
    return parse_instruction(instruction).principles()


def _case(case_id: str, rng: np.random.Generator, with_principles: bool) -> EditCase:
    scene, instruction, edit = generate_case(rng)
    return EditCase(
        case_id=case_id,
        source=to_encoded_image(render(scene)),
        instruction=instruction,
        principles=edit.principles() if with_principles else (),
    )
