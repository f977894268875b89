"""The pool of expert examples.

Each prompt that requests principles contains some of these examples: four in the paper (section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from editr1.config.loader import ConfigError, validate
from editr1.curation.errors import CurationError
from editr1.data.given_json import parse_given_json
from editr1.data.types import DataModel, Instruction, Principle


class ExpertExample(DataModel):
    """An instruction, a description of the source image, and the principles that an expert wrote for the instruction."""

    picture: Annotated[str, Field(min_length=1)]
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(min_length=1)]


def load_expert_examples(path: Path | None = None) -> list[ExpertExample]:
    """Read the pool of expert examples from a JSON Lines file. If ``path`` is None, the built-in pool is read.

    Raises:
        CurationError: The file cannot be read, or a line is not an :class:`ExpertExample`.
    """
    source = path or resources.files("editr1.curation") / "experts.jsonl"
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CurationError(f"{source}: cannot read the pool of expert examples: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{source}: line {number}"
            try:
                found.append(validate(ExpertExample, parse_given_json(line), where=where))
            except ConfigError as error:
                raise CurationError(str(error)) from None
            except ValueError as error:
                raise CurationError(f"{where}: {error}") from None
    return found


def sample_expert_examples(pool: Sequence[ExpertExample], count: int, rng: np.random.Generator) -> list[ExpertExample]:
    """Return ``count`` different examples in random order. If the pool has fewer examples, return all of them."""
    return [pool[int(index)] for index in rng.permutation(len(pool))[:count]]
