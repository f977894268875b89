"""Exit codes of a stage process, and the base class of errors with a documented exit code."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of a stage process and of the command line.

    They follow the convention of PyTorchJob's ``restartPolicy: ExitCode``: codes 1 to 127 are permanent errors, and
    codes from 128 can be retried.
    """

    DONE = 0
    """The outputs are committed."""
    UNEXPECTED = 1
    """An unexpected error occurred (the log has its traceback), or the result of a command is negative, such as a failed check."""
    CONFIG = 2
    """A setting is invalid, or access to a service is denied."""
    DATA = 3
    """The input data are invalid (the message gives the file, the row and the field), or nothing can be learned from them."""
    REWARD_BUDGET = 4
    """More reward requests failed than the run allows."""
    INPUT = 5
    """An input artifact is missing or does not match its digest, or a reward replica does not serve the model of the run."""
    TIMEOUT = 124
    """An editr1 command reached its timeout while it waited for a run. The run continues."""
    TRANSIENT = 129
    """A service or the artifact store could not be reached; another attempt may succeed."""
    INTERRUPTED = 130
    """Ctrl-C ended an editr1 command that was following a run on a cluster or on another machine. The run continues."""
    KILLED = 137
    """The process was killed (SIGKILL): it ran out of memory, or the node was lost."""
    TERMINATED = 143
    """The process was terminated (SIGTERM) and committed a checkpoint, from which the next attempt continues."""


def is_retryable(code: int) -> bool:
    """Return True if a stage that ended with ``code`` may succeed in another attempt.

    A negative code is a signal number, as in Python's ``subprocess``.
    """
    return code < 0 or code >= 128


class Editr1Error(Exception):
    """Base class of the errors that end a process with a documented exit code.

    Subclasses set ``exit_code``. The stage and the command line exit with this code.
    """

    exit_code: int = ExitCode.UNEXPECTED


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code of a stage that fails with ``error``, or None if the error is unexpected.

    Three kinds of errors of other libraries are transient: network errors, a full disk (the retry may run on another
    node), and a failed collective after the loss of another rank.
    """
    if isinstance(error, Editr1Error):
        return error.exit_code
    network = isinstance(error, ConnectionError | TimeoutError)
    disk_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ExitCode.TRANSIENT if network or disk_full or _is_lost_rank(error) else None


def _is_lost_rank(error: BaseException) -> bool:
    """Return True if a collective failed because another rank was lost.

    Such errors are ``torch.distributed.DistError``, and any RuntimeError with a message of the gloo backend.
    """
    if any(base.__name__ == "DistError" for base in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)
