"""How the edits of a public set get their scores from a reward model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from editr1.data.types import EncodedImage, Principle, ScoreItem
from editr1.evaluation.scoring import Scorer, score_in_batches, value


class RatedEdit(NamedTuple):
    """One edit to be scored. Pictures are encoded files."""

    source: bytes
    edited: bytes
    instruction: str


Rate = Callable[[Sequence[RatedEdit]], list[float | None]]
"""Scores edits, aligned; None where there is no score."""

PrinciplesFor = Callable[[bytes, str], tuple[Principle, ...]]
"""The principles of a case, from source picture and instruction: a public set brings none."""


def rate_with(scorer: Scorer, principles: PrinciplesFor, *, batch: int = 64) -> Rate:
    """A rating function over a verifier; principles are asked for once a (source, instruction). None of them: no score."""
    known: dict[tuple[bytes, str], tuple[Principle, ...]] = {}

    def rate(edits: Sequence[RatedEdit]) -> list[float | None]:
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
        outcomes = dict(zip(items, score_in_batches(items.values(), scorer, batch=batch), strict=True))
        return [value(outcomes.get(index)) for index in range(len(edits))]

    return rate
