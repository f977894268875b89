"""The tie of a process to the one that started it."""

from __future__ import annotations

import os
import signal
import sys

from editr1.runs.exit_codes import ExitCode
from editr1.runs.job import PARENT_VARIABLE


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when whoever started this process is gone (Linux), so that its next start meets nobody.

    Does nothing where no launcher named itself in the environment.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if sys.platform != "linux" or parent is None:
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(ExitCode.TERMINATED)
