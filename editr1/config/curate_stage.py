"""Settings of the curate stage: curation, the source of its images, and the held-out split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from editr1.config.base import Settings
from editr1.config.curate import CurateConfig


class ShapesConfig(Settings):
    """Size of the shapes dataset, which is generated if no images are imported."""

    cases: Annotated[int, Field(ge=1)] = 1500
    """Edit cases for SFT rows."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 4
    """Edited images per case."""
    pairs: Annotated[int, Field(ge=0)] = 800
    """Preference pairs for GCPO."""
    test_pairs: Annotated[int, Field(ge=0)] = 1000
    """Held-out preference pairs."""
    rl_cases: Annotated[int, Field(ge=1)] = 2000
    """Edit cases for RL of the editor."""
    test_cases: Annotated[int, Field(ge=0)] = 1000
    """Held-out edit cases."""


class CurateStageConfig(Settings):
    """Settings of the curate stage."""

    curation: CurateConfig = Field(default_factory=CurateConfig)
    """Endpoints, models and variant of curation."""
    labeller: Literal["endpoint", "shapes", "photos"] = "endpoint"
    """Source of principles and labels. "endpoint": the endpoints of ``curation``. "shapes": the oracle of the shapes
    dataset. "photos": measurements of named photographic operations, for trials. The stage starts the last two
    as local servers with the same HTTP interface."""
    shapes: ShapesConfig = Field(default_factory=ShapesConfig)
    """Size of the shapes dataset, if the stage has no input ``data``."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Fraction of imported cases that is held out, by a hash of the case id. The shapes dataset has separate
    held-out cases."""
    seed: int = 0
    """Seed of the shapes dataset."""
