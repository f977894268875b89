"""Settings of curation: endpoints, models, sampling and ablation variants (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings
from editr1.config.llm import EndpointConfig, VlmConfig

Range = tuple[Annotated[int, Field(ge=0, le=50)], Annotated[int, Field(ge=0, le=50)]]


class MemberConfig(VlmConfig):
    """A model that writes reasoning traces, with its system prompt and temperature.

    The setting ``members`` contains several such models.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Unique name of the member. It appears in the ``member`` column of the SFT rows."""
    system: Literal["plain", "sceptic", "retoucher", "surveyor"] = "plain"
    """Variant of the system prompt. All variants state the same rules, but each describes a different kind of
    reviewer."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Relative probability with which this member is chosen to write a trace."""


class PrincipleCounts(Settings):
    """Allowed numbers of principles per edit case, in total and per category.

    Each number is a range [minimum, maximum] that includes both bounds. A principle is one yes/no question about the
    edited image.
    """

    total: Range = (10, 10)
    """Number of principles in all categories together. The paper uses exactly 10."""
    follow: Range = (3, 4)
    """Number of principles about whether the instruction was followed."""
    keep: Range = (3, 4)
    """Number of principles about whether everything else is unchanged."""
    quality: Range = (2, 3)
    """Number of principles about the quality of the image."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("total", "follow", "keep", "quality"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: minimum {least} is greater than maximum {most}; swap or change them")
        if self.total[0] < 1:
            raise ValueError(
                f"total: minimum {self.total[0]} is too low, since every case needs at least one principle; set it to at least 1"
            )
        least = self.follow[0] + self.keep[0] + self.quality[0]
        most = self.follow[1] + self.keep[1] + self.quality[1]
        if least > self.total[1] or most < self.total[0]:
            raise ValueError(
                f"total {list(self.total)}: the ranges of follow, keep and quality allow from {least} to {most} principles in total, and"
                " no number in that range is in the range of total; change total or these ranges"
            )
        return self


class HolisticConfig(Settings):
    """Settings of the holistic ablation, which has no principles per case.

    Each trace contains two ratings of the whole image, one for each of two fixed questions. The lower rating is the
    score.
    """

    follow: Annotated[str, Field(min_length=1, max_length=500)] = "Is the instruction carried out?"
    """Question about whether the instruction was followed."""
    keep: Annotated[str, Field(min_length=1, max_length=500)] = "Is everything else unchanged?"
    """Question about whether everything else is unchanged."""
    threshold: Annotated[float, Field(ge=0.0, le=10.0)] = 5.0
    """A rating (0 to 10) of at least this value is written to the trace as verdict 1, and a lower rating as verdict
    0."""


class CurateConfig(Settings):
    """Settings of curation, which generates principles and the training rows for SFT (arXiv 2604.27505, section 3.1).

    The default model names refer to the simulated labelling models of the shapes dataset.
    """

    variant: Literal["T", "V", "T+V", "holistic"] = "T+V"
    """Content of the SFT row of an edited image. "T" (think): a trace chosen at random. "V" (verify): the gold verdicts
    without reasoning. "T+V": the trace that agrees best with the gold verdicts. "holistic": a trace chosen at random
    that has two ratings of the whole image instead of verdicts on principles."""
    endpoints: dict[str, EndpointConfig] = Field(default_factory=lambda: {"default": EndpointConfig()})
    """OpenAI-compatible chat servers by name. The setting ``endpoint`` of each model is one of these names."""
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=1)] = (
        MemberConfig(name="careful", model="careful", system="sceptic", temperature=1.0),
        MemberConfig(name="lenient", model="lenient-a", temperature=1.0, weight=3.0),
    )
    """Pool of models that write the traces. For each trace, one model is drawn at random according to ``weight``."""
    decomposer: VlmConfig = VlmConfig()
    """Model that writes the principles."""
    verifier: VlmConfig = VlmConfig()
    """Model that writes the gold verdicts, which are the reference answers to the principles."""
    difficulty_filter: VlmConfig = VlmConfig()
    """Model that classifies edit cases as hard or simple."""
    num_traces: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of traces written per edited image."""
    principles: PrincipleCounts = PrincipleCounts()
    """Allowed numbers of principles per case. An answer with a different number is rejected, and the request is
    repeated."""
    num_examples: Annotated[int, Field(ge=0, le=16)] = 4
    """Number of expert examples in the prompt that requests the principles of a case. The examples are drawn
    at random for each case."""
    num_labelled_cases: Annotated[int, Field(ge=1)] | None = None
    """Number of cases whose edited images get traces and gold verdicts. The other cases get only principles, which
    preference pairs and RL need. If there are no edited images, this is the number of cases that get principles. Null:
    all cases, without the difficulty filter."""
    hard_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Fraction of the ``num_labelled_cases`` cases that are selected because the difficulty filter classifies them as
    hard. The others are drawn at random."""
    holistic: HolisticConfig = HolisticConfig()
    """Settings of the variant "holistic"."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Maximum number of requests for one answer (principles, gold verdicts or difficulty). A request is repeated if its
    answer cannot be parsed."""
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Maximum fraction of items that may fail in a curation step. An item is, for example, a case for which principles
    are requested. Curation stops above this fraction, but only after at least 20 failures."""
    max_side: Annotated[int, Field(ge=16, le=16384)] = 1536
    """Maximum length, in pixels, of the longer side of an image that is sent to a model. Larger images are
    downscaled."""
    seed: int = 0
    """Random seed for curation. The ``seed`` of each request to a model is derived from it."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        uses = {"decomposer": self.decomposer, "verifier": self.verifier, "difficulty_filter": self.difficulty_filter}
        uses |= {f"members.{index}": member for index, member in enumerate(self.members)}
        for where, use in uses.items():
            if use.endpoint not in self.endpoints:
                known = ", ".join(sorted(self.endpoints)) or "none"
                raise ValueError(
                    f"{where}.endpoint: {use.endpoint!r} is not in endpoints ({known}); use one of these names or add it to endpoints"
                )
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise ValueError(f"members: names must be unique (got {names}); rename the repeated ones")
        return self
