"""Settings of the curate stage: labelling, source of the images, and the split into training and evaluation data."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.curate import CurateConfig

_SIMULATED_COUNTS: Final = {"shapes": ((1, 4, 1), (2, 3, 1)), "photos": ((1, 1, 1),)}
"""Numbers of follow, keep and quality principles per case that a simulated labeller can generate."""


class ShapesConfig(Settings):
    """Size of the shapes dataset, a set of generated images with known ground truth.

    The shapes dataset is used if no images are imported.
    """

    cases: Annotated[int, Field(ge=1)] = 1500
    """Number of edit cases (a source image with an instruction) from which SFT rows are made."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 4
    """Number of edited images per edit case."""
    pairs: Annotated[int, Field(ge=0)] = 800
    """Number of preference pairs for GCPO."""
    test_pairs: Annotated[int, Field(ge=0)] = 1000
    """Number of preference pairs that are used only for evaluation."""
    rl_cases: Annotated[int, Field(ge=1)] = 2000
    """Number of edit cases for RL of the editor."""
    test_cases: Annotated[int, Field(ge=0)] = 1000
    """Number of edit cases that are used only for evaluation."""


class CurateStageConfig(Settings):
    """Settings of the curate stage."""

    curation: CurateConfig = Field(default_factory=CurateConfig)
    """Endpoints, models and other settings of curation."""
    labeller: Literal["endpoint", "shapes", "photos"] = "endpoint"
    """Source of principles, traces and gold verdicts. "endpoint": the models behind the endpoints of ``curation``.
    "shapes": simulated models that know the ground truth of the shapes dataset. "photos": a simulated model that
    measures which operations were applied to the demo photographs. For "shapes" and "photos", the stage starts a local
    server with the same HTTP interface as an endpoint."""
    shapes: ShapesConfig = Field(default_factory=ShapesConfig)
    """Size of the shapes dataset, which is generated if the stage has no input ``data``."""
    test_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Fraction of imported source images whose cases are used only for evaluation. A hash of the image selects them, so
    no source image is used for both training and evaluation. The fraction does not apply to the shapes dataset, which has
    separate cases for evaluation."""
    seed: int = 0
    """Seed from which the shapes dataset is generated. With imported data, it is added to ``curation.seed``, so that runs
    with different seeds get different labels."""

    @model_validator(mode="after")
    def _labeller_can_write_the_principles(self) -> Self:
        """Reject limits on the number of principles per case that the simulated labeller can never meet."""
        allowed, written = self.curation.principles, _SIMULATED_COUNTS.get(self.labeller)
        if written is None or self.curation.variant == "holistic":
            return self
        ranges = (allowed.follow, allowed.keep, allowed.quality, allowed.total)
        possible = any(
            all(least <= count <= most for count, (least, most) in zip((*counts, sum(counts)), ranges, strict=True))
            for counts in written
        )
        if not possible:
            names = ("total", "follow", "keep", "quality")
            wanted = ", ".join(f"{name} {list(getattr(allowed, name))}" for name in names)
            columns = zip(*((sum(counts), *counts) for counts in written), strict=True)
            needed = ", ".join(f"{n}: [{min(c)}, {max(c)}]" for n, c in zip(names, columns, strict=True))
            raise ValueError(
                f"curation.principles: the labeller {self.labeller!r} never generates the allowed numbers of "
                f"principles per case ({wanted}); set curation.principles to {{{needed}}}"
            )
        return self
