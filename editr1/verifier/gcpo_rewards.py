"""Rewards of GCPO (arXiv 2604.27505, section 3.2).

In a preference pair, the score of each trace is compared with the scores of all traces of the other edit. All functions are
pure. The score None represents a trace that could not be parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Scores = Sequence[float | None]


@dataclass(frozen=True)
class PairRewards:
    """Rewards in [0, 1] of the N traces for the winner and the N traces for the loser of a pair."""

    winner: tuple[float, ...]
    loser: tuple[float, ...]

    @property
    def advantages(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Advantages of the winner's traces and of the loser's traces, for metrics only.

        An advantage is the reward of a trace minus the mean reward of all traces for the same edit. For the loss, TRL's
        GRPOTrainer computes the same values itself.
        """
        return centred(self.winner), centred(self.loser)


@dataclass(frozen=True)
class PairStats:
    """Counts for one preference pair, with N traces for the winner and N for the loser.

    Each score of the winner is compared with each score of the loser. Traces that could not be parsed have no score.
    """

    num_comparisons: int
    """Number of comparisons: parsed traces of the winner times parsed traces of the loser."""
    wins: int
    """Number of comparisons in which the winner's score is higher."""
    ties: int
    """Number of comparisons in which both scores are equal."""
    num_traces: int
    """Total number of traces of the winner and the loser."""
    num_parsed: int
    """Number of traces that could be parsed."""
    without_signal: bool
    """True if no trace of the pair contributes to the gradient."""


def pair_rewards(winner: Scores, loser: Scores, tie_credit: float = 0.0) -> PairRewards:
    """Compute the rewards of a pair's traces from their scores.

    The reward of a trace is the fraction of correctly ordered comparisons with the parsed traces of the other edit:
    r_w[j] = mean over k of 1[s_w[j] > s_l[k]] for the winner, and r_l[j] = mean over k of 1[s_l[j] < s_w[k]] for the loser. A
    tie counts as ``tie_credit``; with 0 the comparison is strict, as in the paper. The reward is 0 if the trace could not be
    parsed, or if no trace of the other edit could be parsed.
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
    """Count the comparisons and the traces of one pair.

    The pair has no signal if every advantage is 0 (for example because the winner's score is higher in all comparisons),
    or if all traces of the winner or all traces of the loser could not be parsed.
    """
    parsed_winner = [score for score in winner if score is not None]
    parsed_loser = [score for score in loser if score is not None]
    flat = all(abs(value) < 1e-12 for side in rewards.advantages for value in side)
    return PairStats(
        num_comparisons=len(parsed_winner) * len(parsed_loser),
        wins=sum(won > lost for won in parsed_winner for lost in parsed_loser),
        ties=sum(won == lost for won in parsed_winner for lost in parsed_loser),
        num_traces=len(winner) + len(loser),
        num_parsed=len(parsed_winner) + len(parsed_loser),
        without_signal=flat or not parsed_winner or not parsed_loser,
    )


def centred(rewards: Sequence[float]) -> tuple[float, ...]:
    """Subtract the mean reward from each reward, for metrics only. TRL's GRPOTrainer computes the advantages for the loss."""
    mean = _mean(rewards)
    return tuple(reward - mean for reward in rewards)


def _credit(higher: float, lower: float, tie_credit: float) -> float:
    if higher == lower:
        return tie_credit
    return 1.0 if higher > lower else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
