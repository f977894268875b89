"""Images, pairs and scores for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from PIL import Image

from editr1.data.images import encode_png
from editr1.data.types import Candidate, EditCase, EncodedImage, PreferencePair, Principle, Scored, Verdict


def image(red: int, green: int, blue: int) -> EncodedImage:
    """Return a small image of one colour."""
    return EncodedImage(data=encode_png(Image.new("RGB", (4, 4), (red, green, blue))))


def pair_of(
    name: str, case: EditCase, winner: EncodedImage, loser: EncodedImage, label: Literal["winner", "same"] = "winner"
) -> PreferencePair:
    """Return the preference pair ``name`` of two edits of ``case``."""
    edits = [
        Candidate(candidate_id=f"{name}-{side}", editor="e", image=edit) for side, edit in enumerate((winner, loser))
    ]
    return PreferencePair(pair_id=name, case=case, winner=edits[0], loser=edits[1], label=label)


def case_of(name: str, source: EncodedImage, principles: Sequence[Principle]) -> EditCase:
    """Return the case ``name`` with the instruction "brighter"."""
    return EditCase(case_id=name, source=source, instruction="brighter", principles=tuple(principles))


def scored_by(verdicts: Sequence[Verdict], unparsed: Sequence[str] = ()) -> Scored:
    """Return the outcome of an edit whose score is that of its first verdict."""
    return Scored(score=verdicts[0].score, verdicts=tuple(verdicts), unparsed=tuple(unparsed), model_digest="m")


def verdict(score: float, answers: Sequence[Literal[0, 1]], reasoning: str = "") -> Verdict:
    """Return a verdict with the final score ``score`` and an answer to each principle."""
    return Verdict(scores=tuple(answers), average=sum(answers) / len(answers), score=score, reasoning=reasoning)
