"""Scoring of the edits of a public benchmark with a verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from editr1.data.types import EncodedImage, Principle, ScoreItem
from editr1.evaluation.scoring import Scorer, score_in_batches, score_or_none


class BenchmarkEdit(NamedTuple):
    """One edit to be scored. ``source`` and ``edited`` are encoded image files, such as PNG."""

    source: bytes
    edited: bytes
    instruction: str


EditScorer = Callable[[Sequence[BenchmarkEdit]], list[float | None]]
"""Function that scores edits. Returns one score per edit, in order; None where scoring failed."""

PrinciplesFor = Callable[[bytes, str], tuple[Principle, ...]]
"""Function that returns the principles of a case from its source image and instruction.

Public benchmarks contain no principles, so a model has to write them.
"""


def edit_scorer(scorer: Scorer, principles: PrinciplesFor, *, batch_size: int = 64) -> EditScorer:
    """Return a function that scores edits with a verifier.

    ``principles`` is called once per case. If it returns no principles, the edits of the case
    are not scored.
    """
    known: dict[tuple[bytes, str], tuple[Principle, ...]] = {}

    def score(edits: Sequence[BenchmarkEdit]) -> list[float | None]:
        items: dict[int, ScoreItem] = {}
        for index, edit in enumerate(edits):
            case = (edit.source, edit.instruction)
            if case not in known:
                known[case] = principles(*case)
            if known[case]:
                items[index] = ScoreItem(
                    source=EncodedImage(data=edit.source),
                    edited=EncodedImage(data=edit.edited),
                    instruction=edit.instruction,
                    principles=known[case],
                )
        outcomes = dict(zip(items, score_in_batches(items.values(), scorer, batch_size=batch_size), strict=True))
        return [score_or_none(outcomes.get(index)) for index in range(len(edits))]

    return score
