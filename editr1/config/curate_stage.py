"""Settings of stage ``curate``: the curation itself, where its pictures come from, what is held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from editr1.config.base import Settings
from editr1.config.curate import CurateConfig


class ShapesConfig(Settings):
    """How much of the shapes world is drawn when no pictures are imported."""

    cases: Annotated[int, Field(ge=1)] = 1500
    """Edit cases for SFT rows."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 4
    """Edited pictures a case."""
    pairs: Annotated[int, Field(ge=0)] = 800
    """Preference pairs for GCPO."""
    test_pairs: Annotated[int, Field(ge=0)] = 1000
    """Held-out preference pairs."""
    rl_cases: Annotated[int, Field(ge=1)] = 2000
    """Edit cases for editor RL."""
    test_cases: Annotated[int, Field(ge=0)] = 1000
    """Held-out edit cases."""


class CurateStageConfig(Settings):
    """What the curate stage reads besides its inputs."""

    curation: CurateConfig = Field(default_factory=CurateConfig)
    """Endpoints, members of the pool, variant, concurrency."""
    labeller: Literal["endpoint", "shapes", "photos"] = "endpoint"
    """Who answers: the endpoint of ``curation``, or a judge that the stage starts itself behind the same HTTP interface:
    the shapes world's oracle, or measurements of named photographic operations (for trying out)."""
    shapes: ShapesConfig = Field(default_factory=ShapesConfig)
    """Used when the stage has no ``data`` input."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of imported cases that are held out (by a hash of the case id); the shapes world draws its own."""
    seed: int = 0
    """Seed of the draw."""
