"""The exit codes of a stage process, and the base class of every error that has one."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a stage process ends with. PyTorchJob's ``restartPolicy: ExitCode`` reads it the same way."""

    DONE = 0
    """The outputs are committed."""
    UNEXPECTED = 1
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


class Editr1Error(Exception):
    """Base class of the errors that end a process with an exit code of their own.

    A subclass sets ``exit_code``; the stage entry point and the command line both read it from the class.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED
