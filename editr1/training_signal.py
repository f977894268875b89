"""Detection of a training in which nothing can be learned, because no rollout contains a signal.

GCPO and GRPO learn from differences between the rewards of one group. A rollout without such a difference leaves the
weights unchanged. This module decides when to give up; the trainers know the cause and put it into the message.
"""

from __future__ import annotations

from typing import Final

from editr1.errors import Editr1Error, ExitCode

FIRST_ROLLOUTS: Final = 10
"""Default number of rollouts that may pass without any signal at the start of a training.

A sparse signal must not stop a training. With 12 pairs per rollout, as in the quickstart, 10 rollouts have 120 pairs. If
5 % of the pairs have a signal, the probability that none of 120 has one is 0.2 %. The cost of waiting is 10 rollouts.
"""


class NoTrainingSignal(Editr1Error, RuntimeError):
    """The training was stopped because nothing can be learned from its data. The message gives the cause."""

    exit_code = ExitCode.DATA


class SignalMonitor:
    """Watches whether any of the first rollouts of a training has a signal.

    Once a rollout has had a signal, the monitor never reports again.

    Args:
        first_rollouts: number of rollouts that may pass without any signal; None disables the monitor.
        total: number of rollouts of the training. If it is smaller than ``first_rollouts``, the monitor reports after the
            last rollout, so that a short training without any signal does not end as a success.
        done: number of rollouts that were completed before a resume. They count as rollouts without a signal unless
            ``had_signal`` is true.
        had_signal: whether a rollout before the resume had a signal.
    """

    def __init__(self, first_rollouts: int | None, total: int, *, done: int = 0, had_signal: bool = False) -> None:
        self._limit = None if first_rollouts is None or had_signal else min(first_rollouts, total)
        self.rollouts = done
        """Number of rollouts so far."""

    def record(self, has_signal: bool) -> bool:
        """Record one rollout. Return True if the training must stop, because no rollout so far had a signal.

        On several processes, all of them must pass the same value.
        """
        self.rollouts += 1
        if has_signal:
            self._limit = None
        return self._limit is not None and self.rollouts >= self._limit
