"""Stop GCPO early if nothing can be learned from its rollouts, with a message that states the cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editr1.training_signal import NoTrainingSignal, SignalMonitor
from editr1.verifier.gcpo_metrics import logged_counts


class RolloutCheck:
    """A check after each rollout that at least one rollout so far had a signal. See :class:`SignalMonitor`.

    Args:
        pairs: file with the preference pairs, for the message.
        max_new_tokens: length limit of a trace, for the message.
        first_rollouts: number of rollouts at the start of the training that may pass without a signal; None disables the
            check.
        rollouts: number of rollouts of the training.
    """

    def __init__(self, pairs: Path, *, max_new_tokens: int, first_rollouts: int | None, rollouts: int) -> None:
        self._pairs, self._max_new_tokens = pairs, max_new_tokens
        self._first_rollouts, self._rollouts = first_rollouts, rollouts
        self._monitor = SignalMonitor(first_rollouts, rollouts)
        self._totals: Counter[str] = Counter()

    def resume(self, rollouts: int, step: int, history: list[dict[str, Any]]) -> None:
        """Resume the check after ``rollouts`` completed rollouts.

        ``history`` contains their log entries up to optimizer step ``step``. If the log entries do not cover all
        steps, a rollout with a signal may be missing, so the check is disabled.
        """
        counts = [logged_counts(entry) for entry in history]
        signal = any(item.get("pairs_without_signal", 0.0) < item.get("pairs", 0.0) for item in counts)
        covered = max((int(entry["step"]) for entry in history if "step" in entry), default=0) >= step
        self._monitor = SignalMonitor(
            self._first_rollouts, self._rollouts, done=rollouts, had_signal=signal or not covered
        )

    def record(self, counts: Mapping[str, float], truncated: int, first_violation: str | None) -> None:
        """Record a rollout. All processes must pass the same ``counts`` and ``truncated``.

        Args:
            counts: counts over all processes. See :func:`~editr1.verifier.gcpo_metrics.pair_counts`.
            truncated: number of traces that were cut off at the length limit.
            first_violation: reason why the first trace without a score could not be parsed; None if all traces could
                be parsed.

        Raises:
            NoTrainingSignal: no rollout so far had a signal, and no more rollouts may pass without one.
        """
        self._totals.update({**counts, "truncated": truncated})
        if self._monitor.record(counts["pairs_without_signal"] < counts["pairs"]):
            raise NoTrainingSignal(
                f"{self._pairs}: no pair had a signal in the first {self._monitor.rollouts} rollouts, so nothing can be"
                f" learned: {self._cause(first_violation)}"
            )

    def _cause(self, first_violation: str | None) -> str:
        totals = {name: round(value) for name, value in self._totals.items()}
        traces, truncated = totals["traces"], totals["truncated"]
        parsed = totals["parsed_winner"] + totals["parsed_loser"]
        comparisons = totals["comparisons"]
        violation = f"; the first one: {first_violation}" if first_violation else ""
        if truncated == traces:
            return (
                f"all {traces} traces were cut off at max_new_tokens {self._max_new_tokens}, before their score;"
                " raise max_new_tokens"
            )
        if not comparisons:
            return (
                f"{traces - parsed} of {traces} traces have no score that can be parsed ({truncated} were cut off "
                f"at max_new_tokens {self._max_new_tokens}), so no pair could be compared{violation}; start from a "
                "verifier that was trained with SFT, or train it longer"
            )
        if totals["ties"] == comparisons:
            return (
                f"all {comparisons} comparisons are ties, because the verifier gives both edits of a pair the same score;"
                " train it longer with SFT, or raise temperature or num_traces"
            )
        if totals["wins"] == comparisons:
            return (
                f"the verifier already orders all {comparisons} comparisons as the preferences do; use more "
                "difficult pairs, or raise temperature or num_traces"
            )
        return (
            f"all traces of each edit received the same reward ({totals['wins']} of {comparisons} comparisons are "
            f"correct, {totals['ties']} are ties, {traces - parsed} of {traces} traces have no score that can be "
            f"parsed{violation}); raise temperature or num_traces"
        )
