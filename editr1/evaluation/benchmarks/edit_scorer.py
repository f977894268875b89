"""Scoring of the edits of a public benchmark with a verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from editr1.data.types import EncodedImage, Principle, ScoreItem
from editr1.evaluation.scoring import Scorer, score_in_batches, score_or_none


class BenchmarkEdit(NamedTuple):
    """One edit to be scored. ``source`` and ``edited`` are the contents of image files, such as PNG files."""

    source: bytes
    edited: bytes
    instruction: str


EditScorer = Callable[[Sequence[BenchmarkEdit]], list[float | None]]
"""Function that scores edits. Returns one score per edit, in order. A score is None if scoring failed."""

PrinciplesFor = Callable[[bytes, str], tuple[Principle, ...]]
"""Function that generates the principles of a case. Its arguments are the source image and the instruction.

Public benchmarks contain no principles, so a model has to generate them.
"""


def edit_scorer(scorer: Scorer, principles: PrinciplesFor, *, batch_size: int = 64) -> EditScorer:
    """Return a function that scores edits with a verifier.

    ``principles`` is called once per case, that is, once per source image and instruction. If it returns no principles,
    the scores of the case's edits are None.
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
