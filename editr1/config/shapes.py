"""Error rates of the simulated editors, labelling models and annotators of the shapes dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from editr1.config.base import Settings

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class CandidateSettings(Settings):
    """Frequencies of the kinds of edited images (candidates)."""

    multiple_faults_rate: Rate = 0.4
    """Fraction of candidates with two or three faults. The other candidates have at most one fault. With a much smaller
    fraction, low scores are too rare to be learned."""
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
    """Relative frequency of each kind of candidate with at most one fault."""


class MemberSettings(Settings):
    """Error rates of one simulated labelling model."""

    leniency: Rate = 0.7
    """Probability that the model answers "yes" to a principle of category "follow" or "keep" without looking at the
    edit."""
    flip_rate: Rate = 0.1
    """Probability that a verdict is flipped at random: "yes" becomes "no", or "no" becomes "yes"."""
    follow_only_weight: Rate = 0.75
    """Weight of the follow-only score in the final score. The follow-only score is computed from the verdicts on
    principles of category "follow". The remaining weight applies to the score that the dataset's rubric gives for all
    verdicts."""
    noise: Annotated[float, Field(ge=0.0)] = 0.7
    """Standard deviation of the noise in the final score at temperature 1."""


class LabellerSettings(Settings):
    """Settings of the simulated labelling models, which imitate typical mistakes of large VLMs."""

    members: Mapping[str, MemberSettings] = {
        "careful": MemberSettings(leniency=0.2),
        "lenient-a": MemberSettings(),
        "lenient-b": MemberSettings(),
        "lenient-c": MemberSettings(),
    }
    """Labelling models by name. A model name that is not listed is mapped to a listed name by a hash of the name and
    the system prompt."""
    follow_done: Annotated[float, Field(ge=0.0, le=10.0)] = 9.0
    """Follow-only score of an edit that fulfils all principles of category "follow". The follow-only score ignores the
    principles of other categories."""
    follow_floor: Annotated[float, Field(ge=0.0, le=10.0)] = 3.5
    """Follow-only score of an edit that fulfils no principle of category "follow". The follow-only score ignores the
    principles of other categories."""
    follow_span: Annotated[float, Field(ge=0.0, le=10.0)] = 5.5
    """Slope of the follow-only score, which ignores principles of categories other than "follow". If not all "follow"
    principles are fulfilled, the score is ``follow_floor`` plus this value times the fulfilled fraction."""
    step: PositiveFloat = 0.5
    """Final scores are rounded to multiples of this value."""
    gold_flip_rate: Rate = 0.04
    """Probability that a gold verdict is wrong."""

    @model_validator(mode="after")
    def _members(self) -> LabellerSettings:
        if not self.members:
            raise ValueError("members: must have at least one entry; add a labelling model or remove the setting")
        return self


class AnnotatorSettings(Settings):
    """Settings of simulated annotators, who compare the true scores of two edited images of a case."""

    flip_rate: Rate = 0.05
    """Probability that the annotators prefer the image with the lower true score."""
    tie_threshold: Annotated[float, Field(ge=0.0)] = 1.0
    """Two images whose true scores differ by less than this value are labelled "same"."""
