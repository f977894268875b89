"""Rejection sampling of traces from preference pairs."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from editr1.curation.preferred import preferred_rows
from editr1.data.types import (
    Candidate,
    Category,
    EditCase,
    EncodedImage,
    FailureCause,
    PreferencePair,
    Principle,
    Scored,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    Verdict,
)
from editr1.verifier.trace import parse_trace


def image(shade: int) -> EncodedImage:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
    return EncodedImage(data=out.getvalue())


CASE = EditCase(
    case_id="c",
    source=image(0),
    instruction="make it red",
    principles=(Principle(question="is it red?", category=Category.FOLLOW),),
)


def pair(number: int, label: str = "winner") -> PreferencePair:
    sides = [Candidate(candidate_id=f"{number}-{k}", editor="e", image=image(2 * number + k + 1)) for k in (0, 1)]
    return PreferencePair(pair_id=f"p{number}", case=CASE, winner=sides[0], loser=sides[1], label=label)  # type: ignore[arg-type]


def scored(*scores: float) -> Scored:
    verdicts = tuple(Verdict(scores=(1,), average=1.0, score=s, reasoning=f"trace {s}") for s in scores)
    return Scored(score=5.0, verdicts=verdicts, model_digest="m")


def test_every_edit_with_a_rewarded_trace_yields_a_row_with_its_best_trace() -> None:
    outcomes: list[list[ScoreOutcome]] = [
        [
            scored(3.0, 8.0, 9.0),
            scored(9.5, 4.0),
        ],  # The winner's 8 and 9 exceed the loser's 4, and the loser's 4 is below two of the winner's three scores.
        [scored(5.0), scored(5.0)],  # A tie earns no reward.
        [scored(2.0), ScoreFailure(cause=FailureCause.UNPARSED, detail="x")],
    ]
    batch_sizes: list[int] = []

    def scorer(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        batch_sizes.append(len(items))
        return [outcome for _ in range(len(items) // 2) for outcome in outcomes.pop(0)]

    done: list[int] = []
    pairs = [pair(0), pair(1, "same"), pair(2), pair(3)]
    rows = list(preferred_rows(pairs, scorer, batch=2, on_batch=done.append))
    assert (batch_sizes, done) == ([4, 2], [2, 1])
    assert [row.quadruple.candidate.candidate_id for row in rows] == ["0-0", "0-1"]
    parsed = [parse_trace(row.trace, CASE.principles) for row in rows]
    assert [v.score for v in parsed if isinstance(v, Verdict)] == [8.0, 4.0]
    assert rows[0].member == "own"
