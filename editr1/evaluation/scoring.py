"""Score edits in batches. If the scoring of an edit fails, the failure is counted, and the edit gets no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol, TypeVar

from PIL.Image import Image

from editr1.data.types import EditCase, ScoreFailure, ScoreItem, ScoreOutcome, outcomes_fault
from editr1.errors import Editr1Error, ExitCode

Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]
"""Function that scores edits. Returns one outcome per edit, in order: a score or the reason why scoring failed."""

T = TypeVar("T")

MIN_FAILURES: Final = 20
"""Minimum number of failures before the fraction of failures is checked during scoring."""


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


@dataclass
class FailureTally:
    """Counts of the edits to be scored, and of the edits without a score by cause.

    ``first`` is the reason of the first failure. ``max_failed_fraction`` is the largest allowed fraction of edits
    without a score.
    """

    max_failed_fraction: float = 1.0
    num_edits: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def num_failed(self) -> int:
        """Number of edits without a score."""
        return self.causes.total()

    def add(self, cause: str | None, reason: str = "") -> None:
        """Count one edit.

        ``cause`` is None if the edit has a score, and otherwise the cause of the failure, which ``reason`` describes.
        """
        self.num_edits += 1
        if cause is not None:
            self.causes[cause] += 1
            self.first = self.first or reason

    def add_outcome(self, outcome: ScoreOutcome) -> None:
        """Count the outcome of one edit."""
        if isinstance(outcome, ScoreFailure):
            self.add(outcome.cause.value, outcome.detail)
        else:
            self.add(None)

    def check(self, min_failures: int = 1) -> None:
        """Raise TooManyFailures if at least ``min_failures`` edits, and more than the allowed fraction, have no score."""
        if self.num_failed >= min_failures and self.num_failed > self.max_failed_fraction * self.num_edits:
            by_cause = ", ".join(f"{cause}: {n}" for cause, n in self.causes.most_common())
            raise TooManyFailures(
                f"{self.num_failed} of {self.num_edits} scores failed ({by_cause}), but at most"
                f" {self.max_failed_fraction:.0%} may fail; check the model that scores them, or raise max_failed_fraction."
                f" The first failure: {self.first[:300]}"
            )


class ScorerError(RuntimeError):
    """A scorer did not return one outcome per item, or the outcomes of other items."""


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
        ScorerError: The scorer did not return one outcome per item, or the outcomes of other items.
        TooManyFailures: The fraction of failed scores exceeds ``max_failed_fraction``. The message gives the number of
            failures per cause.
    """
    outcomes: list[ScoreOutcome] = []
    tally = FailureTally(max_failed_fraction)
    for number, part in enumerate(batches(items, batch_size), start=1):
        scored = scorer(part)
        if fault := outcomes_fault(part, scored):
            raise ScorerError(f"the scorer did not return the outcomes of its items: {fault}")
        outcomes.extend(scored)
        for outcome in scored:
            tally.add_outcome(outcome)
        if number % 10 == 0:
            tally.check()
        on_batch(len(part))
    tally.check()
    return outcomes


def failures(outcomes: Iterable[ScoreOutcome]) -> Counter[str]:
    """Return the number of failed scores per cause."""
    return Counter(outcome.cause.value for outcome in outcomes if isinstance(outcome, ScoreFailure))


def first_failure(outcomes: Iterable[ScoreOutcome]) -> str:
    """Return the reason of the first failed score, or an empty string if none failed."""
    return next((outcome.detail for outcome in outcomes if isinstance(outcome, ScoreFailure)), "")


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
