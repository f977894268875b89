"""End the stage processes that a launcher has started if the launcher exits without having ended them.

The kernel of Linux sends SIGTERM to a stage whose launcher was killed
(:func:`editr1.launch.local.processes.end_with_parent`), but a stage that is stopped or hangs does not react to it,
and other systems send nothing. :class:`Reaper` therefore starts a small separate process, which runs this file as a
script and imports nothing of this package. The launcher writes the process ids of its stages to a pipe. The pipe is
closed when the launcher exits, whatever ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

GRACE_SECONDS = 300.0
"""Time in seconds that a stage has to commit a checkpoint after its launcher has exited. After this time, it is killed."""
_POLL_SECONDS = 0.2


class Reaper:
    """Process that ends the stages of this process after this process has exited.

    It is started together with the first stage.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._process: subprocess.Popen[str] | None = None

    def add(self, pid: int) -> None:
        """End the process group ``pid`` if this process exits before :meth:`remove` is called."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(self._grace)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self._write(f"+{pid}")

    def remove(self, pid: int) -> None:
        """Forget the process group ``pid``, which has ended."""
        self._write(f"-{pid}")

    def close(self) -> None:
        """Stop the reaper, which ends all processes that were not removed."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # without the reaper, the stages still end with the launcher on Linux
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()


def _main(grace: float) -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        change, pid = line[0], int(line[1:])
        if change == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    for pid in groups:
        _signal(pid, signal.SIGTERM)
        _signal(pid, signal.SIGCONT)  # a stopped process receives SIGTERM only when it continues
    end = time.monotonic() + grace
    while groups and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        groups = {pid for pid in groups if _signal(pid, 0)}
    for pid in groups:
        _signal(pid, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group. Returns False if there is no process in it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    _main(float(sys.argv[1]))
