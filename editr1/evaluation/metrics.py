"""Figures of a reward model and of an editor, each with n and a bootstrap interval.

Pairwise accuracy follows the paper's evaluation (arXiv 2604.27505, section 4): a pair is right iff the winner's score
is above the loser's. A tie is wrong in ``strict`` and half right in ``half_credit``, and is reported on its own. GSB
compares two editors by human choice. Intervals are percentile bootstrap (Efron and Tibshirani, 1993, chapter 13)
over the items, with a fixed seed, so that a figure repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from editr1.data.types import DataModel

Floats = npt.NDArray[np.float64]

_CHUNK = 4_000_000
_SAMPLES = 2_000


class Estimate(DataModel):
    """A figure with its interval. ``n`` is the number of items that it rests on; with ``n`` 1, low = high = value."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    confidence: float = 0.95


class PairAccuracy(DataModel):
    """Accuracy on preference pairs, all parts in [0, 1].

    ``strict`` + ``ties`` + ``inverted`` = 1. ``half_credit`` = strict + ties / 2. ``same`` counts the pairs that people
    called the same and ``failed`` those where a side has no score: both are outside every figure.
    """

    strict: Estimate
    half_credit: Estimate
    ties: Estimate
    inverted: Estimate
    n: int
    same: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: ``samples`` resamples, ``seed``, two-sided ``confidence``."""

    samples: int = _SAMPLES
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"bootstrap samples must be at least 1, got {self.samples}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")


DEFAULT = Bootstrap()


def mean_estimate(values: Sequence[float] | Floats, bootstrap: Bootstrap = DEFAULT) -> Estimate:
    """Mean of ``values`` (n,) with its percentile bootstrap interval. Raises ValueError when empty or not finite."""
    data = _finite(values, "values")
    return _estimate(data, bootstrap)


def paired_difference(
    after: Sequence[float] | Floats, before: Sequence[float] | Floats, bootstrap: Bootstrap = DEFAULT
) -> Estimate:
    """Mean of ``after - before`` over the same items in the same order; items are resampled, never sides.

    Both (n,). Raises ValueError on unequal lengths, on nothing and on values that are not finite.
    """
    first, second = _finite(after, "after"), _finite(before, "before")
    if first.shape != second.shape:
        raise ValueError(f"paired difference needs the same items: {first.size} after, {second.size} before")
    return _estimate(first - second, bootstrap)


def pair_credit(
    winner: Sequence[float] | Floats,
    loser: Sequence[float] | Floats,
    kind: Literal["strict", "half_credit", "ties", "inverted"],
    epsilon: float = 0.0,
) -> Floats:
    """Credit of each pair, float64 (n,): what :func:`pair_accuracy` takes the mean of.

    A tie is ``|winner - loser| <= epsilon``. Scores that are NaN are refused: drop failed pairs first.
    """
    gap = _finite(winner, "winner") - _finite(loser, "loser")
    tie = np.abs(gap) <= epsilon
    won = (gap > 0) & ~tie
    if kind == "strict":
        return won.astype(np.float64)
    if kind == "half_credit":
        return won + 0.5 * tie
    if kind == "ties":
        return tie.astype(np.float64)
    return ((gap < 0) & ~tie).astype(np.float64)


def pair_accuracy(
    winner: Sequence[float | None],
    loser: Sequence[float | None],
    labels: Sequence[Literal["winner", "same"]] | None = None,
    *,
    epsilon: float = 0.0,
    bootstrap: Bootstrap = DEFAULT,
) -> PairAccuracy:
    """Pairwise accuracy over the decided pairs whose two sides have a score.

    ``winner[i]`` and ``loser[i]`` are scores of one pair, None where scoring failed. "same" pairs are left out
    whether scored or not. Raises ValueError when lengths differ or no pair is left.
    """
    if len(winner) != len(loser) or (labels is not None and len(labels) != len(winner)):
        raise ValueError(f"winner, loser and labels differ in length: {len(winner)}, {len(loser)}")
    decided = [i for i in range(len(winner)) if labels is None or labels[i] != "same"]
    kept = [(w, lo) for i in decided if (w := winner[i]) is not None and (lo := loser[i]) is not None]
    if not kept:
        raise ValueError(f"no pair with both scores among {len(winner)} ({len(winner) - len(decided)} are 'same')")
    won, lost = np.array([k[0] for k in kept], np.float64), np.array([k[1] for k in kept], np.float64)
    return PairAccuracy(
        strict=_estimate(pair_credit(won, lost, "strict", epsilon), bootstrap),
        half_credit=_estimate(pair_credit(won, lost, "half_credit", epsilon), bootstrap),
        ties=_estimate(pair_credit(won, lost, "ties", epsilon), bootstrap),
        inverted=_estimate(pair_credit(won, lost, "inverted", epsilon), bootstrap),
        n=len(kept),
        same=len(winner) - len(decided),
        failed=len(decided) - len(kept),
    )


def ratio_estimate(
    numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats, bootstrap: Bootstrap = DEFAULT
) -> Estimate:
    """Sum over sum, for answers that come in clusters (the principles of one edit); clusters are resampled whole.

    Both (clusters,), denominators above 0. ``n`` is the sum of the denominators: the answers, not the clusters.
    """
    top, bottom = _finite(numerators, "numerators"), _finite(denominators, "denominators")
    if top.shape != bottom.shape:
        raise ValueError(f"numerators and denominators differ in length: {top.size}, {bottom.size}")
    if (bottom <= 0).any():
        raise ValueError("every denominator must be above 0")
    rng = np.random.default_rng(bootstrap.seed)
    rows = max(1, _CHUNK // top.size)
    drawn = np.empty(bootstrap.samples)
    for start in range(0, bootstrap.samples, rows):
        index = rng.integers(0, top.size, size=(min(rows, bootstrap.samples - start), top.size))
        drawn[start : start + rows] = top[index].sum(axis=1) / bottom[index].sum(axis=1)
    return interval(float(top.sum() / bottom.sum()), drawn, round(float(bottom.sum())), bootstrap)


def gsb(first: Sequence[float], second: Sequence[float], bootstrap: Bootstrap = DEFAULT) -> Estimate:
    """GSB = (G - B) / (G + S + B) in [-1, 1] (paper, section 4): how much more often the first of two edits is better.

    Scores of the same cases, in order; equal scores are "same". Multiply by 100 for the paper's per cent.
    """
    a, b = _finite(first, "first"), _finite(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"gsb needs the same cases: {a.size} first, {b.size} second")
    return mean_estimate(np.sign(a - b), bootstrap)


def macro_mean(values: Sequence[float] | Floats, groups: Sequence[str], bootstrap: Bootstrap = DEFAULT) -> Estimate:
    """Mean of the groups' means; the interval resamples items inside each group. ``n`` counts items."""
    data = _finite(values, "values")
    names = np.asarray(groups)
    if names.shape != data.shape:
        raise ValueError(f"values and groups differ in length: {data.size}, {names.size}")
    unique = np.unique(names)
    rng = np.random.default_rng(bootstrap.seed)
    parts = [data[names == name] for name in unique]
    drawn = np.mean([resampled_means(part, bootstrap.samples, rng) for part in parts], axis=0)
    value = float(np.mean([part.mean() for part in parts]))
    return interval(value, drawn, data.size, bootstrap)


def _finite(values: Sequence[float] | Floats, name: str) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"{name} must be a non-empty list of numbers, got shape {data.shape}")
    bad = np.flatnonzero(~np.isfinite(data))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] is {data[bad[0]]}: a failed score is no number, leave it out and count it")
    return data


def _estimate(data: Floats, bootstrap: Bootstrap) -> Estimate:
    rng = np.random.default_rng(bootstrap.seed)
    return interval(float(data.mean()), resampled_means(data, bootstrap.samples, rng), data.size, bootstrap)


def interval(value: float, drawn: Floats, n: int, bootstrap: Bootstrap) -> Estimate:
    """``value`` with the percentile interval of its resamples ``drawn``, (samples,)."""
    tail = (1.0 - bootstrap.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Estimate(value=value, low=float(low), high=float(high), n=n, confidence=bootstrap.confidence)


def resampled_means(data: Floats, samples: int, rng: np.random.Generator) -> Floats:
    """Means of ``samples`` resamples with replacement, (samples,). Few distinct values are drawn as counts."""
    levels, counts = np.unique(data, return_counts=True)
    if levels.size <= 64:
        drawn = rng.multinomial(data.size, counts / data.size, size=samples)
        return np.asarray(drawn @ levels / data.size, dtype=np.float64)
    rows = max(1, _CHUNK // data.size)
    means = [
        data[rng.integers(0, data.size, size=(min(rows, samples - start), data.size))].mean(axis=1)
        for start in range(0, samples, rows)
    ]
    return np.concatenate(means)
