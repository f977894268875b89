"""Calling a scorer over many edits: in batches, aligned, with failures counted and never turned into numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from PIL.Image import Image

from editr1.data.types import EditCase, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.errors import Editr1Error, ExitCode

Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]
"""Scores edits; the answer is aligned with the question, one outcome an item."""

T = TypeVar("T")


class TruthReading(Protocol):
    """The true score of an edit in [0, 10], its parts, and the true answers to the case's principles in order."""

    @property
    def score(self) -> float:
        """In [0, 10]."""

    @property
    def follow(self) -> float:
        """Share of follow principles that hold."""

    @property
    def keep(self) -> float:
        """Share of keep principles that hold."""

    @property
    def quality(self) -> float:
        """Share of quality principles that hold."""

    @property
    def verdicts(self) -> Sequence[int]:
        """0 or 1 for each principle of the case, in order."""


Truth = Callable[[EditCase, Image], TruthReading]
"""Reads the truth of an edit from its picture (mode RGB). Only a world with known truth has one."""


class TooManyFailures(Editr1Error, RuntimeError):
    """More scores failed than the evaluation accepts."""

    exit_code = ExitCode.REWARD_BUDGET


class ScorerError(RuntimeError):
    """The scorer broke its contract: its answer is not aligned with the question."""


def score_in_batches(
    items: Iterable[ScoreItem],
    scorer: Scorer,
    *,
    batch: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> list[ScoreOutcome]:
    """Outcomes of ``items``, in order.

    ``max_failed_fraction`` is the largest accepted share of failures over all items, checked at the end of each batch once ten
    batches or all items are behind. ``on_batch`` is told how many items were just scored.

    Raises:
        ScorerError: a batch came back with another length.
        TooManyFailures: with the counts by cause.
    """
    outcomes: list[ScoreOutcome] = []
    failed = 0
    for number, part in enumerate(batches(items, batch), start=1):
        answer = scorer(part)
        if len(answer) != len(part):
            raise ScorerError(f"the scorer answered {len(answer)} outcomes to {len(part)} items")
        outcomes.extend(answer)
        failed += sum(isinstance(outcome, ScoreFailure) for outcome in answer)
        if number % 10 == 0 and failed > max_failed_fraction * len(outcomes):
            raise _too_many(outcomes, max_failed_fraction)
        on_batch(len(part))
    if failed > max_failed_fraction * len(outcomes):
        raise _too_many(outcomes, max_failed_fraction)
    return outcomes


def failures(outcomes: Iterable[ScoreOutcome]) -> Counter[str]:
    """How many scores failed, by cause."""
    return Counter(outcome.cause.value for outcome in outcomes if isinstance(outcome, ScoreFailure))


def value(outcome: ScoreOutcome | None) -> float | None:
    """The score, None where there is none."""
    return None if outcome is None or isinstance(outcome, ScoreFailure) else outcome.score


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most ``size`` items."""
    if size < 1:
        raise ValueError(f"batch size must be at least 1, got {size}")
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _too_many(outcomes: Sequence[ScoreOutcome], max_failed_fraction: float) -> TooManyFailures:
    counts = ", ".join(f"{cause}: {n}" for cause, n in failures(outcomes).most_common())
    return TooManyFailures(f"{sum(failures(outcomes).values())} of {len(outcomes)} scores failed ({counts}); "
                           f"at most {max_failed_fraction:.0%} are accepted")  # fmt: skip
