"""Settings of curation: endpoints, models, sampling and ablation variants (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.llm import EndpointConfig, VlmConfig

Range = tuple[Annotated[int, Field(ge=0, le=50)], Annotated[int, Field(ge=0, le=50)]]


class MemberConfig(VlmConfig):
    """A member of the pool that writes traces: a model, a system prompt and a temperature."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the member in the ``member`` column of the rows."""
    system: Literal["plain", "sceptic", "retoucher", "surveyor"] = "plain"
    """Variant of the system prompt. All variants state the same rules, each from the perspective of a different
    reviewer."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Relative weight with which the member is drawn to write a trace."""


class PrincipleCounts(Settings):
    """Number of principles per case, in total and per category, as [minimum, maximum], both inclusive."""

    total: Range = (10, 10)
    """Principles per case. The paper uses exactly 10."""
    follow: Range = (3, 4)
    """Principles on whether the instruction was followed."""
    keep: Range = (3, 4)
    """Principles on whether everything else is unchanged."""
    quality: Range = (2, 3)
    """Principles on the quality of the image."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("total", "follow", "keep", "quality"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: minimum {least} is greater than maximum {most}")
        if self.total[0] < 1:
            raise ValueError(f"total: minimum {self.total[0]}: a case needs at least 1 principle")
        least = self.follow[0] + self.keep[0] + self.quality[0]
        most = self.follow[1] + self.keep[1] + self.quality[1]
        if least > self.total[1] or most < self.total[0]:
            raise ValueError(f"total {list(self.total)}: the categories add up to {least} to {most} principles")
        return self


class HolisticConfig(Settings):
    """The holistic ablation: instead of principles per case, two ratings of the whole image, of which the lower one counts."""

    follow: Annotated[str, Field(min_length=1, max_length=500)] = "Is the instruction carried out?"
    """Question of category follow in the rows."""
    keep: Annotated[str, Field(min_length=1, max_length=500)] = "Is everything else unchanged?"
    """Question of category keep in the rows."""
    threshold: Annotated[float, Field(ge=0.0, le=10.0)] = 5.0
    """Ratings (0 to 10) of at least this value become the verdict 1 in a trace."""


class CurateConfig(Settings):
    """Curation of the cold-start data (arXiv 2604.27505, section 3.1).

    The default endpoint and models are those of the oracle of the shapes dataset.
    """

    variant: Literal["T", "V", "T+V", "holistic"] = "T+V"
    """T (think): a random trace. V (verify): gold verdicts without reasoning. T+V: the trace that agrees best with the
    gold verdicts. holistic: two ratings of the whole image, no principles."""
    endpoints: dict[str, EndpointConfig] = Field(default_factory=lambda: {"default": EndpointConfig()})
    """Chat servers by name."""
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=1)] = (
        MemberConfig(name="careful", model="careful", system="sceptic", temperature=1.0),
        MemberConfig(name="lenient", model="lenient-a", temperature=1.0, weight=3.0),
    )
    """Pool of models that write the traces. For each trace, a member is drawn by weight."""
    decomposer: VlmConfig = VlmConfig()
    """Model that writes the principles."""
    verifier: VlmConfig = VlmConfig()
    """Model that writes the gold verdicts."""
    difficulty_filter: VlmConfig = VlmConfig()
    """Model that classifies cases as hard or simple."""
    num_traces: Annotated[int, Field(ge=1, le=64)] = 4
    """Traces per quadruple."""
    principles: PrincipleCounts = PrincipleCounts()
    """Number of principles per case. An answer with a different number is rejected, and the request is repeated."""
    experts: Path | None = None
    """JSONL file of expert decompositions (``instruction``, ``picture``, ``principles``); defaults to the pool in the
    package."""
    num_examples: Annotated[int, Field(ge=0, le=16)] = 4
    """Expert decompositions in the prompt, drawn at random per case."""
    num_labelled_cases: Annotated[int, Field(ge=1)] | None = None
    """Number of cases whose candidates are labelled; null labels all and skips the difficulty filter. The other cases
    still get principles, for their preference pairs and for RL. Without candidates: the number of cases that get
    principles."""
    hard_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Fraction of ``num_labelled_cases`` that the difficulty filter must classify as hard; the others are drawn at
    random."""
    holistic: HolisticConfig = HolisticConfig()
    """Questions and threshold of variant holistic."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Maximum number of requests for an answer (principles, gold verdicts, difficulty) that can be parsed."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Curation stops when more than this fraction of a step's items has failed. It is checked after at least 20 failures."""
    max_side: Annotated[int, Field(ge=16, le=16384)] = 1536
    """Images with a longer side, in pixels, are downscaled to this size before they are sent."""
    seed: int = 0
    """Seed of all random draws, and base of the ``seed`` in requests."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        uses = {"decomposer": self.decomposer, "verifier": self.verifier, "difficulty_filter": self.difficulty_filter}
        uses |= {f"members.{index}": member for index, member in enumerate(self.members)}
        for where, use in uses.items():
            if use.endpoint not in self.endpoints:
                known = ", ".join(sorted(self.endpoints)) or "none"
                raise ValueError(f"{where}.endpoint: {use.endpoint!r} is not in endpoints ({known})")
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members: names must be unique (got {names})")
        return self
