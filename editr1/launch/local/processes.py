"""Terminate processes on this machine: a child when its parent exits, and a process group on request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def terminate_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent exits (Linux only).

    Does nothing unless ``EDITR1_PARENT_PID`` is set. Exits with code 143 if that process is no longer the parent.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if sys.platform != "linux" or parent is None:
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(ExitCode.TERMINATED)


def terminate(process: subprocess.Popen[bytes], grace: float) -> None:
    """Send SIGTERM to ``process``, a process group leader, and SIGKILL to its group after ``grace`` seconds."""
    if process.poll() is None:
        process.terminate()
        wait_or_kill(process, grace)


def wait_or_kill(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait for ``process`` to exit, and send SIGKILL to its process group after ``grace`` seconds."""
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
