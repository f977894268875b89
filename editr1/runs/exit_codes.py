"""Exit codes of a stage process: below 128 permanent, 128 and above worth a retry."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage process ends with. PyTorchJob's ``restartPolicy: ExitCode`` reads it the same way."""

    DONE = 0
    """The outputs are committed."""
    BUG = 1
    """An error that nobody foresaw; the log has the trace."""
    CONFIG = 2
    """A setting cannot be used."""
    DATA = 3
    """Input data break a rule; the message names file, row and field."""
    REWARD_BUDGET = 4
    """More reward requests failed than the run allows."""
    INPUT = 5
    """An input artifact is missing or does not match its digest, or a reward replica serves another model than the run's."""
    TRANSIENT = 129
    """A service or store could not be reached; the next attempt may."""
    KILLED = 137
    """SIGKILL: out of memory, a lost node."""
    TERMINATED = 143
    """SIGTERM: a checkpoint was committed; the next attempt continues from it."""


def worth_a_retry(code: int) -> bool:
    """Whether another attempt may succeed. A negative code is a signal as Python's subprocess reports it."""
    return code < 0 or code >= 128
