"""Score the edits of a public benchmark with a verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from editr1.data.types import EncodedImage, Principle, ScoreItem
from editr1.evaluation.scoring import MIN_FAILURES, FailureTally, Scorer, score_in_batches, score_or_none

NO_PRINCIPLES: Final = "no principles"
"""Failure cause of an edit whose case has no principles. All other failure causes are defined by ``ScoreFailure``."""


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


class BenchmarkScorer:
    """An :data:`EditScorer` that scores edits with a verifier, and counts edits without a score by cause.

    Args:
        scorer: Function that scores edits with the verifier.
        principles: Function that returns the principles of a case. It is called once per case, that is, once per source
            image and instruction. If it returns no principles, the edits of the case have no score.
        batch_size: Maximum number of edits per call of ``scorer``.
        max_failed_fraction: Largest allowed fraction of edits without a score.

    Attributes:
        tally: Number of edits so far, and number of those without a score by cause.
    """

    def __init__(
        self, scorer: Scorer, principles: PrinciplesFor, *, batch_size: int = 64, max_failed_fraction: float = 1.0
    ) -> None:
        self.tally = FailureTally(max_failed_fraction)
        self._scorer = scorer
        self._principles = principles
        self._batch_size = batch_size
        self._known: dict[tuple[bytes, str], tuple[Principle, ...]] = {}

    def __call__(self, edits: Sequence[BenchmarkEdit]) -> list[float | None]:
        """Score ``edits``. Return one score per edit, in order. A score is None if scoring failed.

        Raises:
            TooManyFailures: At least 20 edits have no score, and they are a larger fraction than ``max_failed_fraction``.
        """
        items: dict[int, ScoreItem] = {}
        for index, edit in enumerate(edits):
            principles = self._principles_of(edit)
            if principles:
                items[index] = ScoreItem(
                    source=EncodedImage(data=edit.source),
                    edited=EncodedImage(data=edit.edited),
                    instruction=edit.instruction,
                    principles=principles,
                )
            else:
                self.tally.add(NO_PRINCIPLES, f"there are no principles for the instruction {edit.instruction!r:.80}")
        found = score_in_batches(items.values(), self._scorer, batch_size=self._batch_size)
        for outcome in found:
            self.tally.add_outcome(outcome)
        self.tally.check(MIN_FAILURES)
        outcomes = dict(zip(items, found, strict=True))
        return [score_or_none(outcomes.get(index)) for index in range(len(edits))]

    def _principles_of(self, edit: BenchmarkEdit) -> tuple[Principle, ...]:
        case = (edit.source, edit.instruction)
        if case not in self._known:
            self._known[case] = self._principles(*case)
        return self._known[case]
