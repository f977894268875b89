"""The data types that the packages exchange: case, principle, candidate, verdict, preference pair, score.

Names and serialized values follow the paper (arXiv 2604.27505, sections 3 and 4). Images are stored as the bytes of their
files (PNG, JPEG, WebP, TIFF) with their SHA-256; ``editr1.data.images`` decodes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\p{L}\p{N}][\p{L}\p{M}\p{N}._:/-]*$")]
"""An identifier: letters (of any script), digits, and the characters ``. _ : / -``."""
MAX_INSTRUCTION_LENGTH: Final = 4000
"""Maximum number of characters of an instruction."""
Instruction = Annotated[str, Field(min_length=1, max_length=MAX_INSTRUCTION_LENGTH)]
Bit = Annotated[int, Field(ge=0, le=1)]
MAX_PRINCIPLES: Final = 64
"""Maximum number of principles per case, so that a case fits into a prompt and a request."""
Score = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Digest of a file: ``sha256:`` and the SHA-256 of its bytes in hexadecimal."""
Count = Annotated[int, Field(ge=0)]


class DataModel(BaseModel):
    """Base class of all data types. Objects are immutable, and unknown fields are rejected."""

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
    @cached_property
    def sha256(self) -> str:
        """SHA-256 of ``data`` as 64 hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def digest(self) -> str:
        """Digest of the image file: ``sha256:`` and the SHA-256 in hexadecimal."""
        return f"sha256:{self.sha256}"


class EditCase(DataModel):
    """A source image and an edit instruction. The principles are empty until curation has generated them.

    ``case_id`` is unique in a dataset.
    """

    case_id: Id
    source: EncodedImage
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(max_length=MAX_PRINCIPLES)] = ()


def case_digest(source: bytes, instruction: str) -> str:
    """Return a SHA-256 digest of a case's source image and instruction.

    Cases with the same digest request the same edit.
    """
    return case_digest_of(hashlib.sha256(source).hexdigest(), instruction)


def case_digest_of(source_sha256: str, instruction: str) -> str:
    """Return the result of :func:`case_digest` for a source image whose SHA-256, as 64 hex digits, is known."""
    return hashlib.sha256(bytes.fromhex(source_sha256) + instruction.encode()).hexdigest()


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
    """The content of a parsed trace, that is, of the text in which a verifier evaluates an edit.

    ``scores[i]`` answers ``principles[i]`` of the case. ``average`` is their average in [0, 1], with the number of decimals that
    the trace has. ``score`` is the final score in [0, 10], which is not calculated from them.
    """

    scores: tuple[Bit, ...]
    average: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    score: Score
    reasoning: str


class Unparsed(DataModel):
    """The reason why the parser rejected a trace. A rejected trace never gets a score."""

    reason: str


class SftRow(DataModel):
    """A training example for SFT: a quadruple and the trace to imitate (paper section 3.1, step 6).

    ``agreement`` is the fraction of verdicts that match the gold verdicts, or None if there are no gold verdicts.
    ``member`` is the name of the labelling model that wrote the trace.
    """

    quadruple: Quadruple
    trace: Annotated[str, Field(min_length=1)]
    agreement: float | None = None
    member: str = ""


class PreferencePair(DataModel):
    """Two candidates of one case, ranked by annotators.

    If the ``label`` is "same", the order of ``winner`` and ``loser`` has no meaning. Such pairs are stored, but they
    are used neither for training nor for computing the accuracy.
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
    """Return the input of the reward model for a candidate. Raise pydantic's ValidationError if the case has no principles."""
    return ScoreItem(
        source=case.source, edited=candidate.image, instruction=case.instruction, principles=case.principles
    )


class Scored(DataModel):
    """The result of scoring an edit. ``score`` is the mean over the traces that could be parsed, in [0, 10].

    ``verdicts`` has one entry per trace that could be parsed, and ``unparsed`` has one reason per trace that could
    not. ``texts`` contains all raw traces in the order of generation. ``edited`` is the digest of the edited image that
    was scored; None if the scorer does not report it.
    """

    ok: Literal[True] = True
    edited: Digest | None = None
    score: Score
    verdicts: tuple[Verdict, ...]
    unparsed: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    model_digest: str


class FailureCause(StrEnum):
    """Reason why an edit has no score."""

    INVALID = "invalid"
    UNPARSED = "unparsed"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    ENGINE = "engine"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """The reward service refused the request with an HTTP status from 400 to 499."""
    BAD_RESPONSE = "bad_response"
    """The response of the reward service does not belong to the request, or contradicts itself."""


class ScoreFailure(DataModel):
    """The result for an edit that could not be scored. It has no score, so that callers exclude it from averages.

    If too few traces could be parsed (cause ``unparsed``), ``texts`` contains all raw traces, and ``num_parsed`` is
    the number of traces that could be parsed. ``edited`` is the digest of the edited image, or None if it is not known.
    """

    ok: Literal[False] = False
    edited: Digest | None = None
    cause: FailureCause
    detail: str
    num_parsed: Count = 0
    texts: tuple[str, ...] = ()


ScoreOutcome = Annotated[Scored | ScoreFailure, Field(discriminator="ok")]


def outcomes_fault(items: Sequence[ScoreItem], outcomes: Sequence[ScoreOutcome]) -> str:
    """Return why ``outcomes`` cannot be the outcomes of ``items``, in their order, or an empty string if they can be.

    There must be one outcome per item. An outcome that reports the digest of an edited image must report that of its item.
    """
    if len(outcomes) != len(items):
        return f"there are {len(outcomes)} outcomes for {len(items)} edits; there must be one per edit"
    for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        if outcome.edited is not None and outcome.edited != item.edited.digest:
            return (
                f"outcome {index} is for the edited image {outcome.edited}, but edit {index} has the edited image"
                f" {item.edited.digest}"
            )
    return ""
