"""The reward function of GCPO for TRL's GRPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from editr1.data.types import Principle, Unparsed, Verdict
from editr1.verifier.gcpo_metrics import LOG_PREFIX, answer_counts, pair_counts
from editr1.verifier.gcpo_rewards import pair_rewards
from editr1.verifier.pair_layout import PairLayout
from editr1.verifier.trace import parse_trace


class PairReward:
    """Reward function for TRL's GRPOTrainer. In each pair, it compares the winner's scores with the loser's scores.

    Args:
        layout: order of the traces in a batch.
        tie_credit: credit for a comparison of two equal scores, in [0, 0.5].
    """

    __name__ = "pair_reward"

    def __init__(self, layout: PairLayout, tie_credit: float) -> None:
        self._layout = layout
        self._tie_credit = tie_credit
        self.first_violation: str | None = None
        """Reason why the first trace without a score could not be parsed; None if all traces so far could be parsed."""

    def __call__(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        principles: Sequence[Sequence[Principle]],
        row: Sequence[int] | None = None,
        log_metric: Any = None,
        **_: Any,
    ) -> list[float]:
        """Return one reward in [0, 1] per trace, in the order of ``completions``.

        Args:
            completions: traces, as texts or as chat messages.
            completion_ids: token ids of each trace.
            principles: the principles (yes/no questions) that each trace must answer.
            row: row number of each trace in :class:`~editr1.verifier.rows.PairRows`. If given, the order of the batch is
                checked.
            log_metric: called as ``log_metric(name, value)`` with the counts of the batch (see
                :mod:`editr1.verifier.gcpo_metrics`).

        Raises:
            ValueError: the batch does not consist of whole pairs in the order of the layout.
        """
        if row is not None:
            self._layout.check(row)
        texts = [item if isinstance(item, str) else item[0]["content"] for item in completions]
        verdicts = [parse_trace(text, expected) for text, expected in zip(texts, principles, strict=True)]
        if self.first_violation is None:
            self.first_violation = next((item.reason for item in verdicts if isinstance(item, Unparsed)), None)
        scores = [verdict.score if isinstance(verdict, Verdict) else None for verdict in verdicts]
        pairs = [
            (winner, loser, pair_rewards(winner, loser, self._tie_credit))
            for winner, loser in self._layout.split(scores)
        ]
        if log_metric is not None:
            lengths = [(lengths[0], lengths[1]) for lengths in self._layout.split([len(ids) for ids in completion_ids])]
            counts = pair_counts(pairs, lengths) | answer_counts(verdicts, principles)
            for name, value in counts.items():
                log_metric(f"{LOG_PREFIX}{name}", value)
        return self._layout.join([(rewards.winner, rewards.loser) for _, _, rewards in pairs])
