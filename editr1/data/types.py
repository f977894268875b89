"""Immutable data types of Edit-R1: case, principle, candidate, verdict, preference pair, score.

Names and serialized values follow the paper (arXiv 2604.27505, sections 3 and 4). Images are stored as the bytes of their
files (PNG, JPEG, WebP, TIFF) with their SHA-256; ``editr1.data.images`` decodes them.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Instruction = Annotated[str, Field(min_length=1, max_length=4000)]
Bit = Annotated[int, Field(ge=0, le=1)]
MAX_PRINCIPLES: Final = 64
"""Maximum number of principles per case, so that a case fits into a prompt and a request."""
Score = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)]


class DataModel(BaseModel):
    """Base class of all data types: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Category(StrEnum):
    """Category of a principle. The values are the paper's strings and are also used in files and in the HTTP API."""

    FOLLOW = "Instruction Following"
    KEEP = "Feature Preservation"
    QUALITY = "Image Quality"


class Principle(DataModel):
    """One yes/no question about an edited image."""

    question: Annotated[str, Field(min_length=1, max_length=500)]
    category: Category


class EncodedImage(DataModel):
    """An encoded image. ``data`` holds the bytes of the image file, never raw pixels."""

    data: Annotated[bytes, Field(min_length=1, repr=False)]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sha256(self) -> str:
        """Hex SHA-256 of ``data``."""
        return hashlib.sha256(self.data).hexdigest()


class EditCase(DataModel):
    """A source image and an edit instruction, with principles once curation has generated them.

    ``case_id`` is unique in a dataset.
    """

    case_id: Id
    source: EncodedImage
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(max_length=MAX_PRINCIPLES)] = ()


class Candidate(DataModel):
    """An edited image of a case, and the editor that made it."""

    candidate_id: Id
    editor: Annotated[str, Field(min_length=1, max_length=200)]
    image: EncodedImage


class Quadruple(DataModel):
    """A (source, edited, instruction, principles) quadruple, which is the input of the verifier."""

    case: EditCase
    candidate: Candidate


class Verdict(DataModel):
    """A parsed trace.

    ``scores[i]`` answers ``principles[i]`` of the case. ``average`` is the average in [0, 1] as the trace states it; it is
    not recomputed. ``score`` is the final score in [0, 10].
    """

    scores: tuple[Bit, ...]
    average: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    score: Score
    reasoning: str


class Unparsed(DataModel):
    """A trace that the strict parser rejected, with the reason. It is never converted to a score."""

    reason: str


class SftRow(DataModel):
    """A quadruple with the trace to imitate (paper section 3.1, step 6).

    ``agreement`` is the agreement with the gold verdicts in [0, 1], or None for variant T. ``member`` is the name of the
    labelling model that wrote the trace.
    """

    quadruple: Quadruple
    trace: Annotated[str, Field(min_length=1)]
    agreement: float | None = None
    member: str = ""


class PreferencePair(DataModel):
    """Two candidates of one case, ranked by annotators.

    Pairs with the ``label`` "same" are stored, but excluded from training and accuracy; their order of ``winner`` and
    ``loser`` has no meaning.
    """

    pair_id: Id
    case: EditCase
    winner: Candidate
    loser: Candidate
    label: Literal["winner", "same"] = "winner"


class ScoreItem(DataModel):
    """One edit to be scored by the reward model."""

    source: EncodedImage
    edited: EncodedImage
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=MAX_PRINCIPLES)]


def score_item(case: EditCase, candidate: Candidate) -> ScoreItem:
    """Return the item to score for a candidate. Raise pydantic's ValidationError if the case has no principles."""
    return ScoreItem(
        source=case.source, edited=candidate.image, instruction=case.instruction, principles=case.principles
    )


class Scored(DataModel):
    """A score in [0, 10]: the mean over the traces that parsed.

    ``verdicts`` has one entry per parsed trace, ``unparsed`` the reasons of the others. ``texts`` are the raw traces in
    the order of generation.
    """

    ok: Literal[True] = True
    score: Score
    verdicts: tuple[Verdict, ...]
    unparsed: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_digest: str


class FailureCause(StrEnum):
    """Reason why an edit has no score."""

    INVALID = "invalid"
    UNPARSED = "unparsed"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    ENGINE = "engine"
    UNREACHABLE = "unreachable"


class ScoreFailure(DataModel):
    """The result of an edit that could not be scored. It deliberately has no number, so that callers mask and count it."""

    ok: Literal[False] = False
    cause: FailureCause
    detail: str


ScoreOutcome = Annotated[Scored | ScoreFailure, Field(discriminator="ok")]
