"""Rewards of GCPO (arXiv 2604.27505, section 3.2): each trace against the traces of the other side of its pair.

Pure functions over numbers. A score of None stands for a trace that could not be parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Scores = Sequence[float | None]


@dataclass(frozen=True)
class PairRewards:
    """Rewards in [0, 1] of the N traces of each side, aligned with the scores they were computed from."""

    winner: tuple[float, ...]
    loser: tuple[float, ...]

    @property
    def advantages(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """A = r - mean(r) inside each group, without division by a standard deviation; winner's, then loser's."""
        return centred(self.winner), centred(self.loser)


@dataclass(frozen=True)
class PairStats:
    """Counts over the N x N comparisons of one pair, and over its 2N traces."""

    comparisons: int
    wins: int
    ties: int
    traces: int
    parsed: int
    without_signal: bool


def pair_rewards(winner: Scores, loser: Scores, tie_credit: float = 0.0) -> PairRewards:
    """r_w[j] = mean over k of 1[s_w[j] > s_l[k]], and r_l[j] = mean over k of 1[s_l[j] < s_w[k]] (the paper's equation).

    The mean runs over the opponents that were parsed; a tie earns ``tie_credit`` (0: the comparison is strict). A trace
    that was not parsed earns 0, and so does one whose opponents were all not parsed.
    """
    parsed_winner = [score for score in winner if score is not None]
    parsed_loser = [score for score in loser if score is not None]
    return PairRewards(
        winner=tuple(
            0.0 if own is None else _mean([_credit(own, other, tie_credit) for other in parsed_loser]) for own in winner
        ),
        loser=tuple(
            0.0 if own is None else _mean([_credit(other, own, tie_credit) for other in parsed_winner]) for own in loser
        ),
    )


def pair_stats(winner: Scores, loser: Scores, rewards: PairRewards) -> PairStats:
    """What happened in one pair.

    Without signal: every advantage is 0 (p(win) is 0 or 1, say), or one side has no parsed trace to compare with.
    """
    parsed_winner = [score for score in winner if score is not None]
    parsed_loser = [score for score in loser if score is not None]
    flat = all(abs(value) < 1e-12 for side in rewards.advantages for value in side)
    return PairStats(
        comparisons=len(parsed_winner) * len(parsed_loser),
        wins=sum(own > other for own in parsed_winner for other in parsed_loser),
        ties=sum(own == other for own in parsed_winner for other in parsed_loser),
        traces=len(winner) + len(loser),
        parsed=len(parsed_winner) + len(parsed_loser),
        without_signal=flat or not parsed_winner or not parsed_loser,
    )


def centred(rewards: Sequence[float]) -> tuple[float, ...]:
    """Each reward less the mean of its group."""
    mean = _mean(rewards)
    return tuple(reward - mean for reward in rewards)


def weighted_advantage(advantages: Sequence[float], lengths: Sequence[int]) -> float:
    """Mean of A / L over traces of L tokens ("weighted advantage" of the paper).

    Negative: right judgements come with longer traces.
    """
    return _mean([advantage / max(length, 1) for advantage, length in zip(advantages, lengths, strict=True)])


def batch_figures(pairs: Sequence[tuple[Scores, Scores, PairRewards]]) -> dict[str, float]:
    """Rates over a batch of pairs.

    ``pair_win_rate``, ``pair_tie_rate`` and ``pair_half_credit`` (wins + ties / 2) over all comparisons of parsed
    traces (left out when there is none); ``parse_rate`` over all traces; ``no_signal_rate`` over pairs;
    ``score_mean`` over parsed traces; ``score_gap``: the mean winner score less the mean loser score.
    """
    stats = [pair_stats(*pair) for pair in pairs]
    figures = {
        "parse_rate": sum(item.parsed for item in stats) / max(sum(item.traces for item in stats), 1),
        "no_signal_rate": _mean([float(item.without_signal) for item in stats]),
    }
    comparisons = sum(item.comparisons for item in stats)
    if comparisons:
        wins, ties = sum(item.wins for item in stats), sum(item.ties for item in stats)
        figures["pair_win_rate"] = wins / comparisons
        figures["pair_tie_rate"] = ties / comparisons
        figures["pair_half_credit"] = (wins + ties / 2) / comparisons
    won = [score for winner, _, _ in pairs for score in winner if score is not None]
    lost = [score for _, loser, _ in pairs for score in loser if score is not None]
    if won or lost:
        figures["score_mean"] = _mean([*won, *lost])
    if won and lost:
        figures["score_gap"] = _mean(won) - _mean(lost)
    return figures


def _credit(higher: float, lower: float, tie_credit: float) -> float:
    if higher == lower:
        return tie_credit
    return 1.0 if higher > lower else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
