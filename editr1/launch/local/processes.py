"""End stage processes on this machine, on request or when the process that started them exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from editr1.config.loader import ConfigError
from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def terminate_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this process when its parent exits. This works on Linux only.

    The variable ``EDITR1_PARENT_PID`` contains the process ID of the parent. If it is not set, the function does nothing. If the
    parent has already exited, this process exits with code 143. Raises ConfigError if the variable is not a process ID.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and not parent.isdecimal():
        raise ConfigError(
            f"{PARENT_VARIABLE} {parent!r}: not a process id; unset this variable, which the launcher sets for stages"
        )
    if sys.platform != "linux" or parent is None:
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(ExitCode.TERMINATED)


def terminate(process: subprocess.Popen[bytes], grace: float) -> None:
    """Send SIGTERM to ``process``, which must be the leader of a process group, and wait until it exits.

    If it is still running after ``grace`` seconds, SIGKILL is sent to the whole group.
    """
    if process.poll() is None:
        process.terminate()
        wait_or_kill(process, grace)


def wait_or_kill(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait until ``process`` exits. If it is still running after ``grace`` seconds, send SIGKILL to its process group.

    A second Ctrl-C, which raises KeyboardInterrupt, ends the wait and kills the group at once.
    """
    try:
        process.wait(grace)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
