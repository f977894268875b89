"""Detect training runs in which nothing can be learned, because no rollout contains a signal.

GCPO and GRPO learn from differences between the rewards of one group. A rollout without such a difference leaves the
weights unchanged. This module decides when to stop. The trainers determine the cause and report it in the error
message.
"""

from __future__ import annotations

from typing import Final

from editr1.errors import Editr1Error, ExitCode

FIRST_ROLLOUTS: Final = 10
"""Default number of rollouts without any signal that are allowed at the start of a training run.

A training run with a sparse signal must not be stopped. With 12 pairs per rollout, as in the quickstart, 10 rollouts
have 120 pairs. If 5 % of the pairs have a signal, the probability that none of the 120 pairs has a signal is 0.2 %.
At most 10 rollouts are wasted.
"""


class NoTrainingSignal(Editr1Error, RuntimeError):
    """Training was stopped because nothing can be learned from its data. The message gives the cause."""

    exit_code = ExitCode.DATA


class SignalMonitor:
    """Monitor that checks whether any of the first rollouts of a training run has a signal.

    After the first rollout with a signal, the monitor never requests a stop.

    Args:
        first_rollouts: number of rollouts that may pass without any signal; None disables the monitor.
        total: number of rollouts in the training run. If it is smaller than ``first_rollouts``, the monitor requests
            a stop after the last rollout, so that a short training run without any signal does not count as
            successful.
        done: number of rollouts that were completed before a resume. They count as rollouts without a signal unless
            ``had_signal`` is true.
        had_signal: whether a rollout before the resume had a signal.
    """

    def __init__(self, first_rollouts: int | None, total: int, *, done: int = 0, had_signal: bool = False) -> None:
        self._limit = None if first_rollouts is None or had_signal else min(first_rollouts, total)
        self.rollouts = done
        """Number of rollouts so far."""

    def record(self, has_signal: bool) -> bool:
        """Record one rollout.

        Return True if training must stop because no rollout so far had a signal. If several processes train together,
        all of them must pass the same value.
        """
        self.rollouts += 1
        if has_signal:
            self._limit = None
        return self._limit is not None and self.rollouts >= self._limit
