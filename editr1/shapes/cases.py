"""Generate edit cases of the shapes dataset: a source image, an instruction and its principles."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import count, islice
from typing import Final

import numpy as np

from editr1.config.loader import ConfigError
from editr1.data.types import EditCase, Principle
from editr1.seeding import derive_rng
from editr1.shapes.edits import Edit, parse_instruction, random_edit
from editr1.shapes.rendering import render, to_encoded_image
from editr1.shapes.scene import Scene, random_scene

_MOST_EXCLUDED: Final = 10_000


def generate_cases(n: int, seed: int, prefix: str = "case", *, with_principles: bool = False) -> list[EditCase]:
    """Generate ``n`` cases with the ids ``{prefix}-{seed}-{index}``.

    A case depends only on ``prefix``, ``seed`` and its index. Cases with different ``prefix`` or ``seed`` are independent.
    """
    return list(islice(iterate_cases(seed, prefix, with_principles=with_principles), n))


def iterate_cases(seed: int, prefix: str, *, with_principles: bool = False) -> Iterator[EditCase]:
    """Yield an endless sequence of the cases of :func:`generate_cases`."""
    for index in count():
        yield _case(f"{prefix}-{seed}-{index}", derive_rng("case", prefix, seed, index), with_principles)


def without_sources(cases: Iterable[EditCase], excluded: Collection[str]) -> Iterator[EditCase]:
    """Yield the cases whose source image has no SHA-256 in ``excluded``. Their ids and their order do not change.

    Raises:
        ConfigError: 10,000 consecutive cases were excluded, because ``excluded`` contains nearly all possible images.
    """
    consecutive = 0
    for case in cases:
        if case.source.sha256 not in excluded:
            consecutive = 0
            yield case
            continue
        consecutive += 1
        if consecutive >= _MOST_EXCLUDED:
            raise ConfigError(
                f"shapes: the {len(excluded)} source images of the training data are nearly all possible images: "
                f"in {_MOST_EXCLUDED} attempts, no other image was found for a test case; reduce cases, pairs or "
                "rl_cases"
            )


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
