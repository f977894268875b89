"""Rewards of GCPO (arXiv 2604.27505, section 3.2): each trace is compared with all traces of the other side of its pair.

All functions are pure. A score of None represents a trace that could not be parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Scores = Sequence[float | None]


@dataclass(frozen=True)
class PairRewards:
    """Rewards in [0, 1] of the N traces of each side, in the order of their scores."""

    winner: tuple[float, ...]
    loser: tuple[float, ...]

    @property
    def advantages(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Advantages A = r - mean(r) within each group, not divided by a standard deviation, as (winner's, loser's).

        They are used for metrics only. The loss uses the advantages that TRL's GRPOTrainer computes from the rewards with
        ``scale_rewards="none"``, which are equal.
        """
        return centred(self.winner), centred(self.loser)


@dataclass(frozen=True)
class PairStats:
    """Counts over the N x N comparisons of one pair and over its 2N traces."""

    comparisons: int
    """Comparisons between parsed traces."""
    wins: int
    """Comparisons in which the winner's score is higher."""
    ties: int
    """Comparisons in which both scores are equal."""
    traces: int
    parsed: int
    without_signal: bool
    """Whether no trace of the pair contributes to the gradient."""


def pair_rewards(winner: Scores, loser: Scores, tie_credit: float = 0.0) -> PairRewards:
    """Return r_w[j] = mean over k of 1[s_w[j] > s_l[k]] and r_l[j] = mean over k of 1[s_l[j] < s_w[k]].

    The mean is over the opponents that could be parsed. A tie earns ``tie_credit``; with 0 the comparison is strict, as
    in the paper. The reward is 0 if the trace itself or all of its opponents could not be parsed.
    """
    parsed_winner = [score for score in winner if score is not None]
    parsed_loser = [score for score in loser if score is not None]
    return PairRewards(
        winner=tuple(
            0.0 if score is None else _mean([_credit(score, other, tie_credit) for other in parsed_loser])
            for score in winner
        ),
        loser=tuple(
            0.0 if score is None else _mean([_credit(other, score, tie_credit) for other in parsed_winner])
            for score in loser
        ),
    )


def pair_stats(winner: Scores, loser: Scores, rewards: PairRewards) -> PairStats:
    """Count the outcomes of one pair.

    The pair has no signal if every advantage is 0 (for example because p(win) is 0 or 1), or if one side has no
    parsed trace.
    """
    parsed_winner = [score for score in winner if score is not None]
    parsed_loser = [score for score in loser if score is not None]
    flat = all(abs(value) < 1e-12 for side in rewards.advantages for value in side)
    return PairStats(
        comparisons=len(parsed_winner) * len(parsed_loser),
        wins=sum(won > lost for won in parsed_winner for lost in parsed_loser),
        ties=sum(won == lost for won in parsed_winner for lost in parsed_loser),
        traces=len(winner) + len(loser),
        parsed=len(parsed_winner) + len(parsed_loser),
        without_signal=flat or not parsed_winner or not parsed_loser,
    )


def centred(rewards: Sequence[float]) -> tuple[float, ...]:
    """Subtract the mean of the group from each reward. Used for metrics only: in training, TRL's GRPOTrainer does this."""
    mean = _mean(rewards)
    return tuple(reward - mean for reward in rewards)


def weighted_advantage(advantages: Sequence[float], lengths: Sequence[int]) -> float:
    """Return the mean of A / T over traces, where T is the length of a trace in tokens (the paper's "weighted advantage").

    A negative value means that traces with correct judgements are longer.
    """
    return _mean([advantage / max(length, 1) for advantage, length in zip(advantages, lengths, strict=True)])


def batch_metrics(pairs: Sequence[tuple[Scores, Scores, PairRewards]]) -> dict[str, float]:
    """Return rates over a batch of pairs, given as (winner's scores, loser's scores, rewards).

    ``pair_win_rate``, ``pair_tie_rate`` and ``pair_half_credit`` (wins + ties / 2) are fractions of the comparisons
    between parsed traces, and are omitted if there is no such comparison. ``parse_rate`` is a fraction of all traces,
    ``no_signal_rate`` a fraction of the pairs, ``score_mean`` a mean over parsed traces, and ``score_gap`` the mean
    score of winners minus that of losers.
    """
    stats = [pair_stats(*pair) for pair in pairs]
    metrics = {
        "parse_rate": sum(item.parsed for item in stats) / max(sum(item.traces for item in stats), 1),
        "no_signal_rate": _mean([float(item.without_signal) for item in stats]),
    }
    comparisons = sum(item.comparisons for item in stats)
    if comparisons:
        wins, ties = sum(item.wins for item in stats), sum(item.ties for item in stats)
        metrics["pair_win_rate"] = wins / comparisons
        metrics["pair_tie_rate"] = ties / comparisons
        metrics["pair_half_credit"] = (wins + ties / 2) / comparisons
    won = [score for winner, _, _ in pairs for score in winner if score is not None]
    lost = [score for _, loser, _ in pairs for score in loser if score is not None]
    if won or lost:
        metrics["score_mean"] = _mean([*won, *lost])
    if won and lost:
        metrics["score_gap"] = _mean(won) - _mean(lost)
    return metrics


def _credit(higher: float, lower: float, tie_credit: float) -> float:
    if higher == lower:
        return tie_credit
    return 1.0 if higher > lower else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
