"""Rewards of GCPO compared with hand-computed values (arXiv 2604.27505, section 3.2)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.data.types import Category, Principle
from editr1.verifier.gcpo_metrics import gcpo_metrics, pair_counts, rates
from editr1.verifier.gcpo_rewards import Scores, centred, pair_rewards, pair_stats
from editr1.verifier.pair_layout import PairLayout
from editr1.verifier.pair_reward import PairReward
from editr1.verifier.trace import format_trace


def test_reward_is_the_fraction_of_correctly_ranked_opponents() -> None:
    rewards = pair_rewards([8.0, 5.0, 2.0, 9.0], [5.0, 6.0, 1.0, 5.0])
    # winner 8 > 5, 6, 1, 5; 5 > 1 only (ties with two 5s); 2 > 1; 9 > all
    assert rewards.winner == (1.0, 0.25, 0.25, 1.0)
    # loser 5 < 8, 9; 6 < 8, 9; 1 < all four; 5 < 8, 9
    assert rewards.loser == (0.5, 0.5, 1.0, 0.5)
    assert rewards.advantages == ((0.375, -0.375, -0.375, 0.375), (-0.125, -0.125, 0.375, -0.125))


def test_tie_earns_the_tie_credit() -> None:
    rewards = pair_rewards([5.0, 7.0], [5.0, 8.0], tie_credit=0.5)
    assert rewards.winner == (0.25, 0.5)
    assert rewards.loser == (0.75, 0.0)
    assert pair_rewards([5.0], [5.0]).winner == (0.0,)


def test_unparseable_trace_gets_zero_reward_and_is_not_an_opponent() -> None:
    rewards = pair_rewards([8.0, None, 3.0], [None, 5.0, None])
    assert rewards.winner == (1.0, 0.0, 0.0)
    assert rewards.loser == (0.0, 0.5, 0.0)  # 5 < 8 but not 5 < 3; the mean is over the two parsed winners


def test_pair_with_one_unparsed_side_has_no_signal() -> None:
    rewards = pair_rewards([8.0, 3.0], [None, None])
    assert rewards.winner == (0.0, 0.0)
    assert rewards.loser == (0.0, 0.0)
    stats = pair_stats([8.0, 3.0], [None, None], rewards)
    assert stats.without_signal
    assert (stats.num_comparisons, stats.num_parsed, stats.num_traces) == (0, 2, 4)


@pytest.mark.parametrize(("winner", "loser"), [([9.0, 8.0], [1.0, 2.0]), ([1.0, 2.0], [9.0, 8.0])])
def test_pair_that_is_always_or_never_won_has_no_signal(winner: list[float], loser: list[float]) -> None:
    rewards = pair_rewards(winner, loser)
    assert rewards.advantages == ((0.0, 0.0), (0.0, 0.0))
    assert pair_stats(winner, loser, rewards).without_signal


def rates_of(sides: list[tuple[Scores, Scores]], length: int = 10) -> dict[str, float]:
    pairs = [(winner, loser, pair_rewards(winner, loser)) for winner, loser in sides]
    return rates(pair_counts(pairs, [([length] * len(winner), [length] * len(loser)) for winner, loser in sides]))


def test_batch_metrics_are_rates_over_comparisons_traces_and_pairs() -> None:
    assert rates_of([([8.0, 5.0], [5.0, None]), ([1.0, 1.0], [2.0, 3.0])]) == {
        "parse_rate": 7 / 8,
        "no_signal_rate": 0.5,
        "pair_win_rate": 1 / 6,
        "pair_tie_rate": 1 / 6,
        "pair_half_credit": 1.5 / 6,
        "score_mean": (8 + 5 + 1 + 1 + 5 + 2 + 3) / 7,
        "score_gap": 15 / 4 - 10 / 3,
        "weighted_advantage": 0.0,
    }


def test_batch_without_a_parsed_trace_reports_no_pair_rates() -> None:
    assert rates_of([([None, None], [None, None])]) == {
        "parse_rate": 0.0,
        "no_signal_rate": 1.0,
        "weighted_advantage": 0.0,
    }


def test_weighted_advantage_is_the_mean_of_advantage_over_length() -> None:
    rewards = pair_rewards([8.0, 2.0], [5.0, 5.0])
    assert rewards.advantages == ((0.5, -0.5), (0.0, 0.0))
    counts = pair_counts([([8.0, 2.0], [5.0, 5.0], rewards)], [([10, 20], [3, 4])])
    assert rates(counts)["weighted_advantage"] == pytest.approx((0.05 - 0.025) / 4)


scores = st.lists(st.one_of(st.none(), st.integers(0, 20).map(lambda half: half / 2)), min_size=1, max_size=8)


@given(scores, scores, st.sampled_from([0.0, 0.5]))
def test_rewards_are_fractions_and_advantages_sum_to_zero(winner: Any, loser: Any, tie_credit: float) -> None:
    rewards = pair_rewards(winner, loser, tie_credit)
    for side, own in ((rewards.winner, winner), (rewards.loser, loser)):
        assert all(0 <= reward <= 1 for reward in side)
        assert all(reward == 0 for reward, score in zip(side, own, strict=True) if score is None)
        assert sum(centred(side)) == pytest.approx(0, abs=1e-9)


PRINCIPLES = (
    Principle(question="is it red?", category=Category.FOLLOW),
    Principle(question="kept?", category=Category.KEEP),
)


def completion(score: float | None) -> list[dict[str, str]]:
    text = "no trace" if score is None else format_trace("", PRINCIPLES, [1, 0], score)
    return [{"role": "assistant", "content": text}]


def test_rewards_are_returned_in_batch_order() -> None:
    logs: dict[str, float] = {}
    given_scores = [8.0, 5.0, 5.0, None, 1.0, 9.0, 2.0, 2.0]
    rewards = PairReward(PairLayout(2), tie_credit=0.0)(
        completions=[completion(score) for score in given_scores],
        completion_ids=[[0] * 10] * 8,
        principles=[PRINCIPLES] * 8,
        log_metric=logs.__setitem__,
        trainer_state=None,
    )
    assert rewards == [1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.5, 0.5]
    metrics = gcpo_metrics(logs)
    assert metrics["parse_rate"] == 7 / 8
    assert metrics["positive_rate_follow"] == 1.0
    assert metrics["positive_rate_keep"] == 0.0
    assert "positive_rate_quality" not in metrics
    assert metrics["weighted_advantage"] == pytest.approx(0.0)


def test_rewards_do_not_depend_on_how_pairs_are_divided_among_ranks() -> None:
    given_scores = [8.0, 5.0, 5.0, None, 1.0, 9.0, 2.0, 2.0]
    reward = PairReward(PairLayout(2), tie_credit=0.5)

    def of(part: list[float | None]) -> list[float]:
        return reward([completion(score) for score in part], [[0]] * len(part), [PRINCIPLES] * len(part))

    assert of(given_scores[:4]) + of(given_scores[4:]) == of(given_scores)


def test_incomplete_pair_is_rejected() -> None:
    with pytest.raises(ValueError, match="6 traces do not form whole pairs"):
        PairReward(PairLayout(2), tie_credit=0.0)([completion(1.0)] * 6, [[0]] * 6, [PRINCIPLES] * 6)


def test_batch_that_is_not_in_pair_order_is_rejected() -> None:
    reward = PairReward(PairLayout(2), tie_credit=0.0)
    arguments = ([completion(1.0)] * 4, [[0]] * 4, [PRINCIPLES] * 4)
    assert reward(*arguments, row=[6, 6, 7, 7]) == [0.0] * 4
    for row in ([7, 7, 6, 6], [6, 7, 6, 7], [5, 5, 6, 6], [6, 6, 9, 9]):
        with pytest.raises(ValueError, match="keep each pair on one process and in order"):
            reward(*arguments, row=row)
