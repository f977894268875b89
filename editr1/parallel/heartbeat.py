"""Heartbeats of the processes of a stage.

A thread of each process updates the modification time of a file every few seconds. The process that started it
observes on its own clock whether the time changes. A process that is stopped (SIGSTOP), or that hangs in the kernel
or in code that holds the interpreter's lock, becomes silent. A process that loads weights, waits for other ranks or
uploads a checkpoint does not become silent. A heartbeat therefore shows that a process can run, but not that its work
makes progress. torch's timeout for collectives, 30 minutes, ends a process group in which every process can run and
none makes progress.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from editr1.durations import format_duration

FOLDER_VARIABLE = "EDITR1_HEARTBEATS"
"""Environment variable with the folder of the heartbeat files. If it is not set, a process writes no heartbeat."""
BEAT_SECONDS = 5.0
"""Interval in seconds at which a heartbeat is written."""
TIMEOUT_SECONDS = 300.0
"""Default of the setting ``heartbeat_timeout_seconds``: time in seconds after which a silent process is killed."""
WARN_SECONDS = 60.0
"""Time in seconds after which a silent process is reported in the log; a fifth of the timeout if that is shorter."""
_LONGEST_GAP_SECONDS = 2 * BEAT_SECONDS
"""Maximum time in seconds that is counted between two observations, because a computer in sleep mode also stops the
observer."""


def stage_file(folder: Path) -> Path:
    """Return the heartbeat file of a stage's main process, which the launcher or the pod's main program watches."""
    return folder / "main"


def rank_file(folder: Path, local_rank: int) -> Path:
    """Return the heartbeat file of a rank on its node, which the stage's main process watches."""
    return folder / f"rank-{local_rank}"


def start_heartbeat() -> None:
    """Start a daemon thread that writes the heartbeat of this process.

    Does nothing if ``EDITR1_HEARTBEATS`` is not set.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ
    file = rank_file(Path(folder), int(os.environ["LOCAL_RANK"])) if is_rank else stage_file(Path(folder))
    threading.Thread(target=_beat, args=(file,), name="editr1-heartbeat", daemon=True).start()


def _beat(file: Path) -> None:
    while True:
        with suppress(OSError):
            file.touch()
        time.sleep(BEAT_SECONDS)


@dataclass(frozen=True)
class Silence:
    """A process that has written no heartbeat for a while."""

    who: str
    """Name of the process, such as "rank 1"."""
    pid: int
    host: str
    since: float
    """Time of the last heartbeat, or of the start of the process, in seconds since the epoch."""
    seconds: float
    """Duration of the silence."""
    timeout: float
    """Silence in seconds after which the process is killed."""

    @property
    def is_over_timeout(self) -> bool:
        """Whether the process must be killed now."""
        return self.seconds >= self.timeout

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        then = "it is killed now" if self.is_over_timeout else f"it is killed after {format_duration(self.timeout)}"
        return (
            f"{self.who} (process {self.pid} on {self.host}) has been silent since {since},"
            f" for {format_duration(self.seconds)}; {then}"
        )


class HeartbeatWatch:
    """Observer of the heartbeat of one process. Call :meth:`observe` every few seconds.

    The silence of a process begins with its start, so that a process that never writes a heartbeat is detected as
    well.
    """

    def __init__(
        self, file: Path, who: str, pid: int, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pid = pid
        self._file, self._who, self._timeout, self._clock = file, who, timeout, clock
        self._modified = _modified(file)
        self._observed, self._seconds, self._since = clock(), 0.0, time.time()

    def observe(self) -> Silence | None:
        """Return the silence of the process if it is longer than :data:`WARN_SECONDS` (or a fifth of the timeout), else None."""
        now = self._clock()
        gap, self._observed = now - self._observed, now
        modified = _modified(self._file)
        if modified != self._modified:
            self._modified, self._seconds, self._since = modified, 0.0, time.time()
        else:
            self._seconds += min(gap, _LONGEST_GAP_SECONDS)
        if self._seconds < min(WARN_SECONDS, self._timeout / 5):
            return None
        return Silence(self._who, self.pid, socket.gethostname(), self._since, self._seconds, self._timeout)


def _modified(file: Path) -> int:
    """Return the modification time of a file in nanoseconds; 0 if there is no such file."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
