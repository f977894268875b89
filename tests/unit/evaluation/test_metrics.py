"""Metrics against hand-computed values and the bootstrap of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from editr1.evaluation.metrics import (
    Bootstrap,
    gsb,
    macro_mean,
    mean_estimate,
    pair_accuracy,
    paired_difference,
    ratio_estimate,
)

MANY_SAMPLES = Bootstrap(samples=20_000, seed=3)


def test_pair_accuracy_matches_hand_computed_values():
    found = pair_accuracy(
        [9.0, 5.0, 4.0, 7.0, None, 3.0, 8.0],
        [2.0, 5.0, 6.0, 6.5, 1.0, None, 1.0],
        ["winner"] * 6 + ["same"],
    )
    assert (found.n, found.failed, found.same) == (4, 2, 1)
    assert found.strict.value == pytest.approx(2 / 4)
    assert found.ties.value == pytest.approx(1 / 4)
    assert found.inverted.value == pytest.approx(1 / 4)
    assert found.half_credit.value == pytest.approx(2.5 / 4)
    assert found.strict.n == 4


def test_score_difference_within_epsilon_is_a_tie():
    found = pair_accuracy([5.4, 5.0, 9.0], [5.0, 5.4, 1.0], epsilon=0.5)
    assert (found.strict.value, found.inverted.value) == (pytest.approx(1 / 3), 0.0)
    assert found.ties.value == pytest.approx(2 / 3)


def test_empty_or_non_finite_input_is_rejected():
    with pytest.raises(ValueError, match="none of the 2 pairs has both a human preference and scores for both edits"):
        pair_accuracy([1.0, None], [2.0, 1.0], ["same", "winner"])
    with pytest.raises(ValueError, match="non-empty"):
        mean_estimate([])
    with pytest.raises(ValueError, match=r"values\[1\] is nan"):
        mean_estimate([1.0, float("nan")])
    with pytest.raises(ValueError, match="must have one value per item, got 2 and 1 values"):
        paired_difference([1.0, 2.0], [1.0])


def test_gsb_is_good_minus_bad_over_all_cases():
    found = gsb([9.0] * 5 + [4.0] * 3 + [1.0] * 2, [4.0] * 10)
    assert found.value == pytest.approx(0.3)
    assert found.n == 10
    with pytest.raises(ValueError, match="must have one score per case, got 2 and 1 scores"):
        gsb([1.0, 2.0], [1.0])


@pytest.mark.parametrize("kind", ["continuous", "few values"])
def test_mean_interval_matches_the_scipy_percentile_bootstrap(kind):
    rng = np.random.default_rng(1)
    data = rng.normal(6, 2, 300) if kind == "continuous" else rng.integers(0, 11, 300).astype(float)
    ours = mean_estimate(data, MANY_SAMPLES)
    theirs = stats.bootstrap(
        (data,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.value == pytest.approx(data.mean())
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.02), pytest.approx(theirs.high, abs=0.02))


def test_paired_interval_matches_scipy_and_is_narrower_than_unpaired():
    rng = np.random.default_rng(2)
    before = rng.normal(6, 2, 400)
    after = before + rng.normal(0.3, 0.5, 400)
    ours = paired_difference(after, before, MANY_SAMPLES)
    theirs = stats.bootstrap(
        (after, before),
        lambda a, b: np.mean(a - b),
        paired=True,
        vectorized=False,
        n_resamples=4_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))
    assert ours.low > 0
    assert ours.high - ours.low < 0.5 * (mean_estimate(after).high - mean_estimate(after).low)


def test_interval_is_reproducible_and_narrows_with_n():
    data = list(np.random.default_rng(0).normal(size=100))
    assert mean_estimate(data) == mean_estimate(data)
    assert mean_estimate(data, Bootstrap(seed=1)) != mean_estimate(data)
    wide, narrow = mean_estimate(data), mean_estimate(data * 16)
    assert (narrow.high - narrow.low) == pytest.approx((wide.high - wide.low) / 4, rel=0.1)


def test_interval_has_the_stated_coverage():
    rng = np.random.default_rng(7)
    hits = 0
    for i in range(300):
        found = mean_estimate((rng.random(200) < 0.7).astype(float), Bootstrap(samples=500, seed=i))
        hits += found.low <= 0.7 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_macro_mean_weights_groups_equally():
    values, types = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    assert macro_mean(values, types).value == pytest.approx(0.5)
    assert mean_estimate(values).value == pytest.approx(0.75)


def test_correlated_answers_widen_the_interval():
    correct = [6.0, 0.0] * 50
    answered = [6.0] * 100
    clustered = ratio_estimate(correct, answered)
    independent = mean_estimate([1.0, 0.0] * 300)
    assert (clustered.value, clustered.n) == (0.5, 600)
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_invalid_bootstrap_settings_are_rejected():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Bootstrap(samples=0)
    with pytest.raises(ValueError, match=r"got 1\.5"):
        Bootstrap(confidence=1.5)
