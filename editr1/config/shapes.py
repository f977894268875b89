"""Settings of the small world: what its candidates, labelling models and annotators get wrong, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from editr1.config.base import Settings

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class CandidateSettings(Settings):
    """How often each kind of candidate is made."""

    several: Rate = 0.4
    """Share of candidates with two or three faults at once; the rest have at most one. Fewer, and low marks are too rare to be learnt."""
    weights: Mapping[str, Weight] = {
        "perfect": 2.0,
        "no_edit": 1.0,
        "wrong": 1.5,
        "leak": 1.0,
        "leak_two": 0.5,
        "lost": 1.0,
        "extra": 1.0,
        "noise": 0.7,
        "border": 0.7,
        "partial": 0.7,
        "blur": 0.7,
        "ground_leak": 1.0,
    }
    """Relative weights of the kinds of a candidate with at most one fault."""


class MemberSettings(Settings):
    """One labelling model of the pool."""

    leniency: Rate = 0.7
    """Probability that it calls a real fault of follow or keep fine."""
    flips: Rate = 0.1
    """Probability that a verdict is flipped at random, either way."""
    follow_only: Rate = 0.75
    """Share of the final mark that looks at follow alone; the rest is the true rubric on its own verdicts."""
    noise: Annotated[float, Field(ge=0.0)] = 0.7
    """Standard deviation of the final mark at temperature 1."""


class OracleSettings(Settings):
    """The pool of labelling models that stands in for large VLMs, with the faults that real ones have."""

    members: Mapping[str, MemberSettings] = {
        "careful": MemberSettings(leniency=0.2),
        "lenient-a": MemberSettings(),
        "lenient-b": MemberSettings(),
        "lenient-c": MemberSettings(),
    }
    """Members by model name. A name that is not here gets one of them, by a hash of name and system prompt."""
    follow_done: Annotated[float, Field(ge=0.0, le=10.0)] = 9.0
    """The follow-only mark of an edit whose follow principles all hold."""
    follow_floor: Annotated[float, Field(ge=0.0, le=10.0)] = 3.5
    """The follow-only mark of an edit none of whose follow principles hold."""
    follow_span: Annotated[float, Field(ge=0.0, le=10.0)] = 5.5
    """What the share of follow principles that hold adds to ``follow_floor`` while not all do."""
    step: PositiveFloat = 0.5
    """Final marks are multiples of this."""
    gold_flips: Rate = 0.04
    """Probability that a gold verdict is wrong."""

    @model_validator(mode="after")
    def _members(self) -> OracleSettings:
        if not self.members:
            raise ValueError("members: needs at least one member")
        return self


class AnnotatorSettings(Settings):
    """The people who compare two candidates. They judge by the truth."""

    flips: Rate = 0.05
    """Probability that the label is the other candidate."""
    same_gap: Annotated[float, Field(ge=0.0)] = 1.0
    """Candidates whose true scores differ by less get the label "same"."""
