"""Metrics of reward models and editors, each with its number of items and a bootstrap confidence interval.

Pairwise accuracy follows the paper (arXiv 2604.27505, section 4): a pair is correct if and only if the edit that
people preferred (the winner) has a higher score than the other edit (the loser). A tie counts as wrong in ``strict``
and as half correct in ``half_credit``. The fraction of ties is also reported. GSB (good, same, bad) compares the
scores of two editors. Intervals are percentile bootstrap intervals (Efron and Tibshirani, 1993, chapter 13). The
bootstrap resamples items with a fixed seed, so that results are reproducible. Every function has a parameter
``groups``, which contains the group name of each item. Items of one group, such as the six pairs of a ranking, are
resampled together (:mod:`editr1.evaluation.resampling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from editr1.data.types import DataModel
from editr1.evaluation.resampling import (
    Groups,
    group_codes,
    group_sums,
    resampled_macro_means,
    resampled_means,
    resampled_ratios,
)

Floats = npt.NDArray[np.float64]

_SAMPLES = 2_000


class Estimate(DataModel):
    """The estimate of a metric from ``n`` items, with its confidence interval [``low``, ``high``].

    ``confidence`` is the confidence level of the interval. ``groups`` is the number of groups of items that the
    bootstrap resampled, such as cases or source images, or None if single items were resampled.
    """

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    confidence: float = 0.95
    groups: int | None = None


class PairAccuracy(DataModel):
    """Accuracy on preference pairs. The winner of a pair is the edit that people preferred.

    All estimates are in [0, 1].

    Attributes:
        strict: Fraction of pairs in which the winner has the higher score.
        half_credit: ``strict`` plus half of ``ties``.
        ties: Fraction of pairs with equal scores.
        inverted: Fraction of pairs in which the loser has the higher score; ``strict`` + ``ties`` + ``inverted`` = 1.
        n: Number of pairs in these four estimates.
        same: Number of pairs without a human preference, which are excluded.
        failed: Number of pairs with a failed score, which are excluded from these four estimates.
        strict_with_failed: ``strict`` over ``n`` + ``failed`` pairs, if pairs with a failed score count as wrong.
        half_credit_with_failed: ``half_credit`` over ``n`` + ``failed`` pairs, if pairs with a failed score count as wrong.
    """

    strict: Estimate
    half_credit: Estimate
    ties: Estimate
    inverted: Estimate
    n: int
    same: int = 0
    failed: int = 0
    strict_with_failed: Estimate | None = None
    half_credit_with_failed: Estimate | None = None


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap: number of resamples, random seed and two-sided confidence level."""

    samples: int = _SAMPLES
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"the number of bootstrap samples must be at least 1, got {self.samples}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"the confidence level must be between 0 and 1, got {self.confidence}")


DEFAULT = Bootstrap()


def mean_estimate(
    values: Sequence[float] | Floats, bootstrap: Bootstrap = DEFAULT, groups: Groups | None = None
) -> Estimate:
    """Return the mean of ``values`` with its percentile bootstrap interval.

    Raises:
        ValueError: ``values`` is empty or has a value that is not finite.
    """
    return _estimate(_finite(values, "values"), bootstrap, groups)


def paired_difference(
    after: Sequence[float] | Floats,
    before: Sequence[float] | Floats,
    bootstrap: Bootstrap = DEFAULT,
    groups: Groups | None = None,
) -> Estimate:
    """Return the mean of ``after - before`` with its percentile bootstrap interval.

    The bootstrap resamples items, so the two values of an item stay together.

    Args:
        after: One value per item, ``[n]``.
        before: The values that are subtracted, for the same items in the same order, ``[n]``.
        bootstrap: Settings of the bootstrap.
        groups: Group of each item, ``[n]``.

    Raises:
        ValueError: The lengths differ, the inputs are empty, or a value is not finite.
    """
    first, second = _finite(after, "after"), _finite(before, "before")
    if first.shape != second.shape:
        raise ValueError(f"after and before must have one value per item, got {first.size} and {second.size} values")
    return _estimate(first - second, bootstrap, groups)


def pair_credit(
    winner: Sequence[float] | Floats,
    loser: Sequence[float] | Floats,
    kind: Literal["strict", "half_credit", "ties", "inverted"],
    epsilon: float = 0.0,
) -> Floats:
    """Return one value in [0, 1] per pair, as float64 ``[n]``.

    The mean of these values is the metric ``kind`` of :class:`PairAccuracy`. A pair is a tie if
    ``|winner - loser| <= epsilon``.

    Raises:
        ValueError: A score is not finite. Pairs without both scores must be excluded before the call.
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
    groups: Groups | None = None,
) -> PairAccuracy:
    """Return the pairwise accuracy. Pairs without a human preference or without scores of both edits are excluded.

    Pairs without scores of both edits count as wrong in the two estimates whose names end in ``_with_failed``.

    Args:
        winner: Scores of the edits that people preferred. A score is None if scoring failed.
        loser: Scores of the other edits, in the same order.
        labels: Human labels, in the same order. Pairs labelled "same" have no preference. If ``labels`` is None, every
            pair has a preference.
        epsilon: Largest score difference that counts as a tie.
        bootstrap: Settings of the bootstrap.
        groups: Group of each pair, such as its case, in the same order.

    Raises:
        ValueError: The lengths differ, or no pair has a human preference and scores of both edits.
    """
    if any(values is not None and len(values) != len(winner) for values in (loser, labels, groups)):
        lengths = ", ".join(str(len(values)) for values in (winner, loser, labels, groups) if values is not None)
        raise ValueError(f"winner, loser, labels and groups must have the same length, got {lengths}")
    decided = [i for i in range(len(winner)) if labels is None or labels[i] != "same"]
    scored = [(w, lo, i) for i in decided if (w := winner[i]) is not None and (lo := loser[i]) is not None]
    if not scored:
        raise ValueError(
            f"none of the {len(winner)} pairs has both a human preference and scores for both edits "
            f"({len(winner) - len(decided)} pairs are labelled 'same'); check why scoring failed"
        )
    won, lost = np.array([w for w, _, _ in scored], np.float64), np.array([lo for _, lo, _ in scored], np.float64)
    names = None if groups is None else [groups[i] for _, _, i in scored]

    def mean(kind: Literal["strict", "half_credit", "ties", "inverted"]) -> Estimate:
        return _estimate(pair_credit(won, lost, kind, epsilon), bootstrap, names)

    failed = [i for i in decided if winner[i] is None or loser[i] is None]
    all_names = None if names is None or groups is None else [*names, *(groups[i] for i in failed)]

    def with_failed(kind: Literal["strict", "half_credit"]) -> Estimate:
        credit = pair_credit(won, lost, kind, epsilon)
        return _estimate(np.concatenate([credit, np.zeros(len(failed))]), bootstrap, all_names)

    return PairAccuracy(
        strict=mean("strict"),
        half_credit=mean("half_credit"),
        ties=mean("ties"),
        inverted=mean("inverted"),
        n=len(scored),
        same=len(winner) - len(decided),
        failed=len(failed),
        strict_with_failed=with_failed("strict"),
        half_credit_with_failed=with_failed("half_credit"),
    )


def ratio_estimate(
    numerators: Sequence[float] | Floats,
    denominators: Sequence[float] | Floats,
    bootstrap: Bootstrap = DEFAULT,
    groups: Groups | None = None,
) -> Estimate:
    """Return sum(numerators) / sum(denominators) with its percentile bootstrap interval.

    Each numerator and denominator belongs to a cluster of observations, such as all answers about one edit. The
    bootstrap resamples whole clusters. ``n`` of the result is the number of observations: sum(denominators).

    Args:
        numerators: One value per cluster, such as the number of correct answers about an edit.
        denominators: Number of observations per cluster, such as the number of answers about an edit. Must be above 0.
        bootstrap: Settings of the bootstrap.
        groups: Group of each cluster, such as the case of the edit, in the same order. Clusters of one group are
            resampled together.

    Raises:
        ValueError: The lengths differ, the inputs are empty, a value is not finite, or a denominator is not above 0.
    """
    top, bottom = _finite(numerators, "numerators"), _finite(denominators, "denominators")
    if top.shape != bottom.shape:
        raise ValueError(f"numerators and denominators must have the same length, got {top.size} and {bottom.size}")
    if (bottom <= 0).any():
        raise ValueError(f"every denominator must be above 0, got {bottom.min():g}")
    value, n, codes = float(top.sum() / bottom.sum()), round(float(bottom.sum())), group_codes(groups, top.size)
    if codes is not None:
        top, bottom = group_sums(top, codes), group_sums(bottom, codes)
    drawn = resampled_ratios(top, bottom, bootstrap.samples, np.random.default_rng(bootstrap.seed))
    return interval(value, drawn, n, bootstrap, top.size if top.size < n else None)


def gsb(
    first: Sequence[float], second: Sequence[float], bootstrap: Bootstrap = DEFAULT, groups: Groups | None = None
) -> Estimate:
    """Return GSB = (G - B) / (G + S + B) in [-1, 1] (paper, section 4).

    G (good), S (same) and B (bad) are the numbers of cases in which the edit by the first editor has a higher, an equal
    and a lower score than the edit by the second editor. The paper reports GSB in percent.

    Args:
        first: Scores of the first editor's edits, ``[n]``.
        second: Scores of the second editor's edits of the same cases, ``[n]``.
        bootstrap: Settings of the bootstrap.
        groups: Group of each case, such as its source image, ``[n]``.
    """
    a, b = _finite(first, "first"), _finite(second, "second")
    if a.shape != b.shape:
        raise ValueError(f"first and second must have one score per case, got {a.size} and {b.size} scores")
    return mean_estimate(np.sign(a - b), bootstrap, groups)


def macro_mean(
    values: Sequence[float] | Floats,
    types: Sequence[str],
    bootstrap: Bootstrap = DEFAULT,
    groups: Groups | None = None,
) -> Estimate:
    """Return the mean over types of the mean of each type's values.

    The bootstrap resamples values within each type or, with ``groups``, whole groups. ``n`` of the result is the number
    of values.

    Args:
        values: One value per item, ``[n]``.
        types: Name of the type of each value, in the same order.
        bootstrap: Settings of the bootstrap.
        groups: Group of each value, such as its source image, in the same order. A group can occur in several types.
    """
    data = _finite(values, "values")
    names = np.asarray(types)
    if names.shape != data.shape:
        raise ValueError(f"values and types must have the same length, got {data.size} and {names.size}")
    rng = np.random.default_rng(bootstrap.seed)
    parts = [data[names == name] for name in np.unique(names)]
    value = float(np.mean([part.mean() for part in parts]))
    codes = group_codes(groups, data.size)
    if codes is None:
        drawn = np.mean([resampled_means(part, bootstrap.samples, rng) for part in parts], axis=0)
        return interval(value, drawn, data.size, bootstrap)
    drawn = resampled_macro_means(data, types, bootstrap.samples, rng, codes)
    return interval(value, drawn, data.size, bootstrap, int(codes.max()) + 1)


def _finite(values: Sequence[float] | Floats, name: str) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"{name} must be a non-empty list of numbers, got an array of shape {data.shape}")
    bad = np.flatnonzero(~np.isfinite(data))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] is {data[bad[0]]}, but must be finite; exclude failed scores")
    return data


def _estimate(data: Floats, bootstrap: Bootstrap, groups: Groups | None = None) -> Estimate:
    rng, codes = np.random.default_rng(bootstrap.seed), group_codes(groups, data.size)
    drawn = resampled_means(data, bootstrap.samples, rng, codes)
    resampled = None if codes is None else int(codes.max()) + 1
    return interval(float(data.mean()), drawn, data.size, bootstrap, resampled)


def interval(value: float, drawn: Floats, n: int, bootstrap: Bootstrap, groups: int | None = None) -> Estimate:
    """Return the estimate ``value`` from ``n`` items, with a confidence interval from a bootstrap over ``groups`` groups.

    ``drawn`` contains the value of the metric in each bootstrap resample. The confidence interval of the estimate is
    the percentile interval of these values.
    """
    tail = (1.0 - bootstrap.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Estimate(value=value, low=float(low), high=float(high), n=n, confidence=bootstrap.confidence, groups=groups)
