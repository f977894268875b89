"""Exit codes of a stage process, and the base class of every error that ends one."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of a stage process and of the command line.

    PyTorchJob's ``restartPolicy: ExitCode`` reads them in the same way: a code from 1 to 127 is permanent, one of 128 or
    above is worth a retry.
    """

    DONE = 0
    """The outputs are committed."""
    UNEXPECTED = 1
    """An unexpected error; the log has its traceback."""
    CONFIG = 2
    """A setting is invalid, or access to a service is denied."""
    DATA = 3
    """The input data violate a rule; the message names the file, the row and the field."""
    REWARD_BUDGET = 4
    """More reward requests failed than the run allows."""
    INPUT = 5
    """An input artifact is missing or does not match its digest, or a reward replica serves a model other than the run's."""
    TRANSIENT = 129
    """A service or the artifact store could not be reached; another attempt may succeed."""
    KILLED = 137
    """SIGKILL: out of memory, or the node was lost."""
    TERMINATED = 143
    """SIGTERM: a checkpoint was committed, from which the next attempt continues."""


def worth_a_retry(code: int) -> bool:
    """Return True if another attempt may succeed. A negative code is a signal, as Python's subprocess module reports it."""
    return code < 0 or code >= 128


class Editr1Error(Exception):
    """Base class of the errors that end a process with a documented exit code.

    Subclasses set ``exit_code``. The stage entry point and the command line read it from the error.
    """

    exit_code: int = ExitCode.UNEXPECTED


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code that ``error`` ends a stage with, or None if the error is unexpected.

    Errors of other libraries are transient if they are network errors, a full disk (which may be cleaned up, or the retry
    may run on another node) or a collective that failed because another rank was lost.
    """
    if isinstance(error, Editr1Error):
        return error.exit_code
    network = isinstance(error, ConnectionError | TimeoutError)
    disk_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ExitCode.TRANSIENT if network or disk_full or _is_lost_rank(error) else None


def _is_lost_rank(error: BaseException) -> bool:
    """Return True for ``torch.distributed.DistError``, and for the bare RuntimeError of gloo, which names its transport."""
    if any(base.__name__ == "DistError" for base in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)
