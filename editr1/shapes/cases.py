"""Edit cases of the shapes world, and the principles that an expert would write for them."""

from __future__ import annotations

import numpy as np

from editr1.data.types import EditCase, Principle
from editr1.seeding import derive_rng
from editr1.shapes.drawing import draw, to_picture
from editr1.shapes.edits import Edit, parse_instruction, random_edit
from editr1.shapes.scene import Scene, random_scene


def draw_cases(n: int, seed: int, prefix: str = "case", *, with_principles: bool = False) -> list[EditCase]:
    """``n`` cases ``{prefix}-{seed}-{index}``; deterministic in all arguments, and the first ones do not depend on ``n``.

    Streams of different ``prefix`` or ``seed`` are independent.
    """
    return [
        _case(f"{prefix}-{seed}-{index}", derive_rng("case", prefix, seed, index), with_principles)
        for index in range(n)
    ]


def draw_case(rng: np.random.Generator) -> tuple[Scene, str, Edit]:
    """A source scene, an instruction for it, and the instruction's parsed form."""
    scene = random_scene(rng)
    return scene, *random_edit(scene, rng)


def principles_for(instruction: str) -> tuple[Principle, ...]:
    """The six principles of an instruction. Raises ``ValueError`` for one out of the world's grammar."""
    return parse_instruction(instruction).principles()


def _case(case_id: str, rng: np.random.Generator, with_principles: bool) -> EditCase:
    scene, instruction, edit = draw_case(rng)
    return EditCase(
        case_id=case_id,
        source=to_picture(draw(scene)),
        instruction=instruction,
        principles=edit.principles() if with_principles else (),
    )
