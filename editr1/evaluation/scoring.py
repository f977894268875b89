"""Scoring of edits in batches. If scoring of an edit fails, the failure is counted, and the edit gets no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from PIL.Image import Image

from editr1.data.types import EditCase, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.errors import Editr1Error, ExitCode

Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]
"""Function that scores edits. Returns one outcome per edit, in order: a score or the reason why scoring failed."""

T = TypeVar("T")


class TrueScore(Protocol):
    """Ground truth of an edit: its score, the parts of the score, and the correct answers to the case's principles."""

    @property
    def score(self) -> float:
        """Ground-truth score of the edit, in [0, 10]."""

    @property
    def follow(self) -> float:
        """Fraction of the instruction-following principles that the edit satisfies."""

    @property
    def keep(self) -> float:
        """Fraction of the feature-preservation principles that the edit satisfies."""

    @property
    def quality(self) -> float:
        """Fraction of the image-quality principles that the edit satisfies."""

    @property
    def verdicts(self) -> Sequence[int]:
        """Ground-truth answer to each principle of the case, in order: 1 for yes, 0 for no."""


GroundTruth = Callable[[EditCase, Image], TrueScore]
"""Function that computes the ground truth of an edit from the case and the edited image (mode RGB).

The ground truth is only known for the shapes dataset.
"""


class TooManyFailures(Editr1Error, RuntimeError):
    """The fraction of failed scores exceeds the allowed fraction."""

    exit_code = ExitCode.REWARD_BUDGET


class ScorerError(RuntimeError):
    """A scorer did not return one outcome per item."""


def score_in_batches(
    items: Iterable[ScoreItem],
    scorer: Scorer,
    *,
    batch_size: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> list[ScoreOutcome]:
    """Score ``items`` in batches and return one outcome per item, in order.

    Args:
        items: Items to score.
        scorer: Function that scores one batch.
        batch_size: Maximum number of items per batch.
        max_failed_fraction: Largest allowed fraction of failed scores, checked after every tenth batch and at the end.
        on_batch: Called after each batch with the number of items in it.

    Raises:
        ScorerError: The scorer did not return one outcome per item.
        TooManyFailures: The fraction of failed scores exceeds ``max_failed_fraction``. The message gives the number of
            failures per cause.
    """
    outcomes: list[ScoreOutcome] = []
    failed = 0
    for number, part in enumerate(batches(items, batch_size), start=1):
        scored = scorer(part)
        if len(scored) != len(part):
            raise ScorerError(
                f"the scorer returned {len(scored)} outcomes for {len(part)} items; it must return one per item"
            )
        outcomes.extend(scored)
        failed += sum(isinstance(outcome, ScoreFailure) for outcome in scored)
        if number % 10 == 0 and failed > max_failed_fraction * len(outcomes):
            raise _too_many(outcomes, max_failed_fraction)
        on_batch(len(part))
    if failed > max_failed_fraction * len(outcomes):
        raise _too_many(outcomes, max_failed_fraction)
    return outcomes


def failures(outcomes: Iterable[ScoreOutcome]) -> Counter[str]:
    """Return the number of failed scores per cause."""
    return Counter(outcome.cause.value for outcome in outcomes if isinstance(outcome, ScoreFailure))


def score_or_none(outcome: ScoreOutcome | None) -> float | None:
    """Return the score of an outcome, or None if scoring failed or was not requested."""
    return None if outcome is None or isinstance(outcome, ScoreFailure) else outcome.score


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split ``items`` into consecutive lists of ``size`` items. The last list can be shorter."""
    if size < 1:
        raise ValueError(f"the batch size must be at least 1, got {size}")
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _too_many(outcomes: Sequence[ScoreOutcome], max_failed_fraction: float) -> TooManyFailures:
    counts = failures(outcomes)
    causes = ", ".join(f"{cause}: {n}" for cause, n in counts.most_common())
    return TooManyFailures(
        f"{counts.total()} of {len(outcomes)} scores failed ({causes}), but at most {max_failed_fraction:.0%} may fail;"
        " check the verifier, or raise max_failed_fraction"
    )
