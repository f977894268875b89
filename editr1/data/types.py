"""The nouns of Edit-R1 as frozen types: case, principle, candidate, trace verdict, preference pair, score.

Names and wire strings follow the paper (arXiv 2604.27505, sections 3 and 4). Pictures travel as the encoded bytes
they were read from (PNG, JPEG, WebP, TIFF), with their SHA-256; ``editr1.data.images`` turns them into pixels.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Instruction = Annotated[str, Field(min_length=1, max_length=4000)]
Bit = Annotated[int, Field(ge=0, le=1)]
MOST_PRINCIPLES: Final = 64
"""Of one case: so many fit a prompt and a request."""
Score = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)]


class DataModel(BaseModel):
    """Base of every data type: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Category(StrEnum):
    """What a principle is about; the values are the paper's strings on the wire."""

    FOLLOW = "Instruction Following"
    KEEP = "Feature Preservation"
    QUALITY = "Image Quality"


class Principle(DataModel):
    """One yes/no question about the edited picture."""

    question: Annotated[str, Field(min_length=1, max_length=500)]
    category: Category


class EncodedImage(DataModel):
    """An encoded picture. ``data`` is the file as it was read, never raw pixels."""

    data: Annotated[bytes, Field(min_length=1, repr=False)]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sha256(self) -> str:
        """Hex SHA-256 of ``data``."""
        return hashlib.sha256(self.data).hexdigest()


class EditCase(DataModel):
    """(source picture, instruction), with its principles once they are written. ``case_id`` is unique in a data set."""

    case_id: Id
    source: EncodedImage
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(max_length=MOST_PRINCIPLES)] = ()


class Candidate(DataModel):
    """One edited picture of a case and the editor that made it."""

    candidate_id: Id
    editor: Annotated[str, Field(min_length=1, max_length=200)]
    image: EncodedImage


class Quadruple(DataModel):
    """(source, edited, instruction, principles): what the verifier reads."""

    case: EditCase
    candidate: Candidate


class Verdict(DataModel):
    """A parsed trace.

    ``scores[i]`` answers ``principles[i]`` of the case; ``average`` is what the trace wrote (in [0, 1]), not recomputed;
    ``score`` is the final mark in [0, 10].
    """

    scores: tuple[Bit, ...]
    average: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    score: Score
    reasoning: str


class Unparsed(DataModel):
    """A trace that the strict parser refused, and why. It never stands for a number."""

    reason: str


class SftRow(DataModel):
    """A quadruple with the trace to imitate (paper section 3.1, step 6). ``agreement`` with gold is in [0, 1], None for variant T."""

    quadruple: Quadruple
    trace: Annotated[str, Field(min_length=1)]
    agreement: float | None = None
    member: str = ""


class PreferencePair(DataModel):
    """Two candidates of one case as people ranked them.

    ``label`` "same" pairs are kept in the data and left out of training and accuracy; for them the order of
    ``winner`` and ``loser`` means nothing.
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
    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=MOST_PRINCIPLES)]


def score_item(case: EditCase, candidate: Candidate) -> ScoreItem:
    """What the reward model is asked about a candidate. Raises pydantic's ValidationError when the case has no principles."""
    return ScoreItem(
        source=case.source, edited=candidate.image, instruction=case.instruction, principles=case.principles
    )


class Scored(DataModel):
    """A score: the mean over the traces that parsed.

    ``verdicts`` holds one entry a parsed trace; ``unparsed`` the reasons of the others. ``texts`` are the raw traces
    in order of generation.
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
    """Why an edit has no score."""

    INVALID = "invalid"
    UNPARSED = "unparsed"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    ENGINE = "engine"
    UNREACHABLE = "unreachable"


class ScoreFailure(DataModel):
    """A failed score. It has no number on purpose: callers mask and count it."""

    ok: Literal[False] = False
    cause: FailureCause
    detail: str


ScoreOutcome = Annotated[Scored | ScoreFailure, Field(discriminator="ok")]
