"""The pool of expert decompositions that are shown in context (paper section 3.1: four of a pool)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from editr1.curation.errors import CurationError
from editr1.data.types import DataModel, Instruction, Principle


class Expert(DataModel):
    """An instruction, what its picture shows in words, and the principles that an expert wrote for it."""

    picture: Annotated[str, Field(min_length=1)]
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]


def load_experts(path: Path | None = None) -> list[Expert]:
    """Read a pool, one JSON object a line; ``path`` None reads the one that ships with the package.

    Raises :class:`CurationError` naming file and line for an entry that is not an :class:`Expert`.
    """
    source = path or resources.files("editr1.curation") / "experts.jsonl"
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CurationError(f"{source}: the pool of experts cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(Expert.model_validate_json(line))
            except ValidationError as error:
                raise CurationError(f"{source}: line {number}: {error}") from error
    return found


def draw_experts(pool: Sequence[Expert], count: int, rng: np.random.Generator) -> list[Expert]:
    """``count`` different experts in random order; the whole pool when it is smaller."""
    return [pool[int(index)] for index in rng.permutation(len(pool))[:count]]
