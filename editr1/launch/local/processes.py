"""End processes on this machine: a child together with its parent, and a process group on request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends (Linux only).

    Does nothing if the environment names no parent process (``EDITR1_PARENT_PID``).
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if sys.platform != "linux" or parent is None:
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(ExitCode.TERMINATED)


def end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Send SIGTERM to ``process``, the leader of its own group, and SIGKILL to the group after ``grace`` seconds."""
    if process.poll() is None:
        process.terminate()
        wait_or_kill(process, grace)


def wait_or_kill(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait until ``process`` has ended, and send SIGKILL to its group after ``grace`` seconds."""
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
