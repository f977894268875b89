"""How processes of one machine are tied to each other: a child to its parent's life, and its end by its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when whoever started this process is gone (Linux).

    Does nothing where nobody named itself in the environment.
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
    """SIGTERM to ``process``, which leads a group of its own, and SIGKILL to the group after ``grace`` seconds."""
    if process.poll() is None:
        process.terminate()
        wait_or_kill(process, grace)


def wait_or_kill(process: subprocess.Popen[bytes], grace: float) -> None:
    """Wait until ``process`` has ended; SIGKILL to its group after ``grace`` seconds."""
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
