"""Exit codes of a stage process, and the base class of errors with a documented exit code."""

from __future__ import annotations

import errno
import re
from enum import IntEnum

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL_MESSAGE = re.compile(
    r"No space left on device|Disk quota exceeded|\(os error (28|122)\)"
    r"|\binline_container\.cc.*(unexpected pos|file write failed)|^\d+ requested and \d+ written$",
)
"""Pattern of messages about a full disk from libraries that do not raise an OSError with ``errno``. torch reports a
short write as "unexpected pos"."""


class ExitCode(IntEnum):
    """Exit codes of a stage process and of the command line.

    They follow the convention of PyTorchJob's ``restartPolicy: ExitCode``: codes 1 to 127 are permanent errors, and
    codes from 128 can be retried.
    """

    DONE = 0
    """The outputs are committed."""
    UNEXPECTED = 1
    """An unexpected error occurred (the log contains its traceback), or the result of a command is negative, such as a failed check."""
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
    """The process was terminated (SIGTERM) after it had committed a checkpoint, from which the next attempt continues."""


_SIGNAL_CODES = 128
"""Offset of the exit code of a process that was ended by a signal. The exit code is this offset plus the signal
number."""


def is_retryable(code: int) -> bool:
    """Return True if a stage that ended with ``code`` may succeed in another attempt.

    A negative code is a signal number, as in Python's ``subprocess``.
    """
    return code < 0 or code >= _SIGNAL_CODES


def shell_code(code: int) -> int:
    """Convert a code of Python's ``subprocess`` to the code that a shell shows.

    A process ended by signal ``n`` (code ``-n``) gets the code 128 + ``n``. Only the lowest byte of an exit code
    reaches the parent process. Without this conversion, -9 (SIGKILL) would become 247.
    """
    return _SIGNAL_CODES - code if code < 0 else code


def failure_code(code: int | None) -> int:
    """Return the exit code, from 1 to 255, of a failed command or attempt.

    ``code`` is the code of the process that failed. If it is 0 (although the process failed), None (unknown) or does
    not fit into a byte, the result is :attr:`ExitCode.UNEXPECTED`.
    """
    known = shell_code(code or 0)
    return known if 0 < known < 256 else ExitCode.UNEXPECTED


class Editr1Error(Exception):
    """Base class of the errors that end a process with a documented exit code.

    Subclasses set ``exit_code``. The stage and the command line exit with this code.
    """

    exit_code: int = ExitCode.UNEXPECTED


def exit_code_of(error: BaseException) -> int | None:
    """Return the exit code of a stage that fails with ``error``, or None if the error is unexpected.

    Three kinds of errors from other libraries are transient: network errors, a full disk (the retry may run on
    another node), and a failed collective after the loss of another rank.
    """
    if isinstance(error, Editr1Error):
        return error.exit_code
    network = isinstance(error, ConnectionError | TimeoutError)
    return ExitCode.TRANSIENT if network or is_disk_full(error) or _is_lost_rank(error) else None


def is_disk_full(error: BaseException) -> bool:
    """Return True if ``error`` or an error that caused it reports a full disk or an exceeded quota.

    Libraries that write files in native code raise exceptions in which only the message reports the cause:
    safetensors (SafetensorError), torch (RuntimeError) and numpy (an OSError without ``errno``). ``shutil.copytree``
    collects the messages of several errors, and other libraries raise their own exceptions from the OSError.
    """
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in _DISK_FULL:
            return True
        if _DISK_FULL_MESSAGE.search(str(current)):
            return True
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return False


def _is_lost_rank(error: BaseException) -> bool:
    """Return True if a collective failed because another rank was lost.

    Such errors are ``torch.distributed.DistError``, and any RuntimeError with a message from the gloo backend.
    """
    if any(base.__name__ == "DistError" for base in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)
