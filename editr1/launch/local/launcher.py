"""The local backend: start each stage as a process on this machine. The process runs the same code as a pod."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from editr1.errors import shell_code
from editr1.launch.launcher import Observation
from editr1.launch.local.processes import signal_name, terminate
from editr1.launch.local.reaper import Reaper
from editr1.launch.local.watch import ProcessWatch
from editr1.parallel.heartbeat import FOLDER_VARIABLE
from editr1.runs.job import CONFIG_VARIABLE, PARENT_VARIABLE, StageJob
from editr1.runs.kinds import KINDS
from editr1.runs.spec import StageSpec
from editr1.runs.stored import dump_stored
from editr1.telemetry.progress import ProgressReader


@dataclass(frozen=True)
class LocalRequest:
    """A stage process to start. The variables in ``environment`` are added to the environment of this process."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    job: StageJob

    @property
    def log(self) -> Path:
        """File to which standard output and standard error of the stage are appended."""
        return self.job.workdir / "log.txt"

    @property
    def job_file(self) -> Path:
        """Path of the job file. The variable ``EDITR1_CONFIG`` passes this path to the stage."""
        return self.job.workdir / "job.json"


@dataclass
class LocalHandle:
    """A stage process that was started."""

    process: subprocess.Popen[bytes]
    request: LocalRequest
    progress: ProgressReader
    watch: ProcessWatch
    log: IO[bytes] | None = field(default=None, repr=False)
    log_start: int = 0
    """Size of the log file in bytes when the process was started. The content before this position belongs to earlier
    attempts."""


class LocalLauncher:
    """Launcher that runs each stage as a process on this machine, in its own process group.

    Every stage inherits the file descriptors ``inherited``. One of them may hold a lock, which is then held until the stage exits.
    """

    def __init__(self, inherited: Sequence[int] = ()) -> None:
        self._inherited = tuple(inherited)
        self._reaper = Reaper()

    def render(self, job: StageJob, stage: StageSpec, traceparent: str | None = None) -> LocalRequest:
        """Return the command, environment and job of the process that ``submit`` would start."""
        processes = stage.processes
        env = {
            **({"TRACEPARENT": traceparent} if traceparent else {}),
            CONFIG_VARIABLE: str(job.workdir / "job.json"),
            FOLDER_VARIABLE: str(job.workdir / "heartbeats"),
            "PET_NPROC_PER_NODE": str(processes),
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",  # Python then does not import a folder in the working directory that has the name of a package.
        }
        # OpenMP threads that spin while they wait slow down all other processes. On 2 cores, with one other busy
        # process, an evaluation took 102 s instead of 8 s. With threads that sleep while they wait, it took 9 to 11
        # s.
        env["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
        concurrent = bool(job.reward_urls) or KINDS[job.kind].service
        if concurrent or processes > 1:
            env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(_threads(processes, concurrent))
        return LocalRequest((sys.executable, "-m", f"editr1.stages.{job.kind}"), env, job)

    def record_fields(self, request: LocalRequest) -> Mapping[str, str]:
        """Return an empty mapping, because a local process has neither a release nor a container image nor a chart."""
        return {}

    def submit(self, request: LocalRequest) -> LocalHandle:
        """Write the job file and start the process."""
        workdir = request.job.workdir
        workdir.mkdir(parents=True, exist_ok=True)
        request.job_file.write_bytes(dump_stored(request.job))
        for file in (workdir / "service.json", request.job.note_file):
            file.unlink(missing_ok=True)
        beats = Path(request.environment[FOLDER_VARIABLE])
        beats.mkdir(exist_ok=True)
        progress = ProgressReader(request.job.progress_file, skip_existing=True)
        log = request.log.open("ab")
        start = log.tell()
        process = subprocess.Popen(
            request.argv,
            env={**os.environ, **request.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self._inherited,
        )
        self._reaper.add(process.pid)
        return LocalHandle(process, request, progress, ProcessWatch(process, request.job, beats), log, start)

    def observe(self, handle: LocalHandle) -> Observation:
        """Return whether the process is running, its exit code, the addresses of its service and its new progress lines."""
        code = handle.process.poll()
        lines = handle.progress.new()
        if code is None:
            handle.watch.observe()
            return Observation(True, None, "", handle.watch.urls(), lines, handle.watch.note)
        self._close(handle)
        return Observation(False, shell_code(code), _reason(code, handle), (), lines)

    def cancel(self, handle: LocalHandle, grace: float) -> None:
        """Send SIGTERM to the process and wait until it exits.

        If it has not exited after ``grace`` seconds, SIGKILL is sent to its process group.
        """
        terminate(handle.process, grace)
        self._close(handle)

    def _close(self, handle: LocalHandle) -> None:
        """Release the resources of a process that has exited. Further calls do nothing."""
        if handle.log is None:
            return
        handle.watch.stop()
        handle.log.close()
        handle.log = None
        self._reaper.remove(handle.process.pid)


def _threads(processes: int, concurrent: bool) -> int:
    """Return the number of CPU threads per process. All processes that run at the same time share the CPU cores equally."""
    return max(1, (os.cpu_count() or 1) // (processes * (2 if concurrent else 1)))


def _reason(code: int, handle: LocalHandle) -> str:
    """Return the reason why an attempt failed: the signal that ended it, or the last error in its log.

    Empty if it succeeded.
    """
    if code == 0:
        return ""
    if handle.watch.killed_because:
        return handle.watch.killed_because
    if code < 0:
        return f"the process was killed by {signal_name(-code)}"
    return _last_error(handle.request.log, handle.log_start)


def _last_error(log: Path, start: int) -> str:
    """Return the last line of a log that reports an error, or else the last line that is not a message of level INFO.

    Lines that were written before the position ``start`` (in bytes) are ignored.
    """
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 8192))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if " ERROR " in line or "Error" in line]
    others = [line for line in lines if " INFO " not in line]
    return (errors or others or [f"the process wrote no error message; read {log}"])[-1].strip()
