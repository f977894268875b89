"""Terminate stage processes on this machine, on request or when the process that started them exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from editr1.config.loader import ConfigError
from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def end_with_parent() -> None:
    """End this process when its parent exits, for whatever reason.

    A stage receives SIGTERM, so that it can commit a checkpoint. A rank is killed at once: its parent, the main
    process of the stage, does not exit before its ranks unless it was killed, and the next attempt must not run at
    the same time as ranks of this attempt.

    On Linux, the kernel sends the signal, even to a process that is stopped. On other systems, a thread checks every
    second whether the parent still exists.

    The variable ``EDITR1_PARENT_PID`` contains the process ID of the parent. If it is not set, the function does nothing. If the
    parent has already exited, this process exits with code 143. Raises ConfigError if the variable is not a process ID.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and not parent.isdecimal():
        raise ConfigError(
            f"{PARENT_VARIABLE} {parent!r}: not a process id; unset this variable, which the launcher sets for stages"
        )
    if parent is None:
        return
    number = signal.SIGKILL if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIGTERM
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
    else:
        threading.Thread(target=_signal_without_parent, args=(int(parent), number), daemon=True).start()
    if os.getppid() != int(parent):
        sys.exit(ExitCode.TERMINATED)


def _signal_without_parent(parent: int, number: int) -> None:
    """Wait until the parent of this process is no longer ``parent``, and then send the signal ``number`` to this process."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), number)


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def terminate(process: subprocess.Popen[bytes], grace: float) -> None:
    """Send SIGTERM to ``process``, which must be the leader of a process group, and wait until it exits.

    If it is still running after ``grace`` seconds, SIGKILL is sent to the whole group.
    """
    if process.poll() is None:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a stopped process receives SIGTERM only when it continues
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
