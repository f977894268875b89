"""Settings of curation: which models answer, how often they are asked, which ablation is built (paper section 3.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.llm import EndpointConfig, VlmConfig

Range = tuple[Annotated[int, Field(ge=0, le=50)], Annotated[int, Field(ge=0, le=50)]]


class MemberConfig(VlmConfig):
    """A member of the pool that writes traces: a model, the system prompt it gets, a temperature."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Name in the rows' ``member`` column."""
    system: Literal["plain", "sceptic", "retoucher", "surveyor"] = "plain"
    """Variant of the system prompt: all hold the same rules, each looks from its own side."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the traces that this member writes, relative to the others."""


class PrincipleCounts(Settings):
    """How many principles a case gets, and how many of each category; least and most, both allowed."""

    total: Range = (10, 10)
    """All principles of a case. The paper has exactly 10."""
    follow: Range = (3, 4)
    """Was the instruction carried out."""
    keep: Range = (3, 4)
    """Is the rest unchanged."""
    quality: Range = (2, 3)
    """Is the picture sound."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("total", "follow", "keep", "quality"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: least {least} is above most {most}")
        if self.total[0] < 1:
            raise ValueError(f"total: at least 1 principle a case, not {self.total[0]}")
        least = self.follow[0] + self.keep[0] + self.quality[0]
        most = self.follow[1] + self.keep[1] + self.quality[1]
        if least > self.total[1] or most < self.total[0]:
            raise ValueError(f"total {self.total}: the categories allow {least} to {most} principles")
        return self


class HolisticConfig(Settings):
    """The holistic ablation: no principles of the case, two marks for the whole picture, the lower one counts."""

    follow: Annotated[str, Field(min_length=1, max_length=500)] = "Is the instruction carried out?"
    """Question that stands for category follow in the rows."""
    keep: Annotated[str, Field(min_length=1, max_length=500)] = "Is everything else unchanged?"
    """Question that stands for category keep in the rows."""
    threshold: Annotated[float, Field(ge=0.0, le=10.0)] = 5.0
    """A mark of at least this (of 10) is written as 1 in the trace's array."""


class CurateConfig(Settings):
    """The cold-start data of arXiv 2604.27505, section 3.1. The defaults talk to the shapes world's oracle."""

    variant: Literal["T", "V", "T+V", "holistic"] = "T+V"
    """T: think, a trace at random. V: gold verdicts without reasoning. T+V: the trace that agrees best with gold.
    holistic: two marks for the whole picture, no principles."""
    endpoints: dict[str, EndpointConfig] = Field(default_factory=lambda: {"default": EndpointConfig()})
    """Chat servers by name."""
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=1)] = (
        MemberConfig(name="careful", model="careful", system="sceptic", temperature=1.0),
        MemberConfig(name="lenient", model="lenient-a", temperature=1.0, weight=3.0),
    )
    """Pool that writes the traces. Each trace of a quadruple draws a member by weight."""
    decomposer: VlmConfig = VlmConfig()
    """Writes the principles."""
    verifier: VlmConfig = VlmConfig()
    """Writes the gold verdicts."""
    difficulty_filter: VlmConfig = VlmConfig()
    """Tells hard cases from simple ones."""
    num_traces: Annotated[int, Field(ge=1, le=64)] = 4
    """Traces a quadruple."""
    principles: PrincipleCounts = PrincipleCounts()
    """How many principles a case needs; another number is refused and asked for again."""
    experts: Path | None = None
    """JSONL of expert decompositions (``instruction``, ``picture``, ``principles``); null: the pool that ships."""
    num_examples: Annotated[int, Field(ge=0, le=16)] = 4
    """Expert decompositions shown in context, drawn at random a case."""
    num_labelled_cases: Annotated[int, Field(ge=1)] | None = None
    """Cases whose candidates are labelled; null takes all and asks no judge. The other cases still get principles, for
    their pairs and for RL. Without candidates: the cases that get principles."""
    hard_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Share of ``num_labelled_cases`` that the judge must have found hard; the others are drawn at random."""
    holistic: HolisticConfig = HolisticConfig()
    """Questions and threshold of the holistic variant."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Times that an answer which cannot be read (principles, gold, judgement) is asked for."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Curation stops when more than this share of a step's items has failed (looked at from 20 failures on)."""
    max_side: Annotated[int, Field(ge=16, le=16384)] = 1536
    """Pictures with a longer side are reduced to it before they are sent."""
    seed: int = 0
    """Seed of every draw, and of the ``seed`` sent."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        uses = {"decomposer": self.decomposer, "verifier": self.verifier, "difficulty_filter": self.difficulty_filter}
        uses |= {f"members.{index}": member for index, member in enumerate(self.members)}
        for where, use in uses.items():
            if use.endpoint not in self.endpoints:
                known = ", ".join(sorted(self.endpoints)) or "none"
                raise ValueError(f"{where}.endpoint: {use.endpoint!r} is not one of endpoints ({known})")
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members: names must differ, got {names}")
        return self
