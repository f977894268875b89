"""Nothing that a run started outlives the process that executes it, whatever ends that process and whatever state it is in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

# A launcher whose stage starts a rank, as the main process of a distributed stage does.
LAUNCHER = """
import sys, time
from pathlib import Path
from editr1.config.store import StoreConfig
from editr1.launch.local.launcher import LocalLauncher, LocalRequest
from editr1.launch.local.reaper import Reaper
from editr1.runs.job import StageJob
from editr1.runs.spec import StageSpec

folder = Path(sys.argv[1])
job = StageJob(run="r", stage="s", kind="sft", seed=0, store=StoreConfig(url=folder.as_uri()), workdir=folder)
launcher = LocalLauncher()
launcher._reaper = Reaper(grace=5.0)
environment = launcher.render(job, StageSpec(name="s", kind="sft")).environment
launcher.submit(LocalRequest((sys.executable, str(folder / "stage.py"), str(folder)), environment, job))
time.sleep(600)
"""
STAGE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from editr1.launch.local.processes import end_with_parent

rank, folder = "TORCHELASTIC_RUN_ID" in os.environ, Path(sys.argv[1])
end_with_parent()
if rank or (folder / "ignores SIGTERM").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not rank:
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "x", "EDITR1_PARENT_PID": str(os.getpid())}
    subprocess.Popen([sys.executable, *sys.argv], env=environment, start_new_session=True)
(folder / ("rank" if rank else "stage")).write_text(str(os.getpid()))
if (folder / f"stop {'rank' if rank else 'stage'}").exists():
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(600)
"""


def pid_in(file: Path) -> int:
    end = time.monotonic() + 60
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < end, f"{file.name} was not started"
        time.sleep(0.05)
    return int(file.read_text())


def state_of(pid: int) -> str:
    """Return the state of a process as the kernel names it (T: stopped, Z: has ended); "Z" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture
def started() -> Iterator[list[int]]:
    """Process ids that are killed after the test, whatever its outcome."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if state_of(pid) != "Z":
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("stopped", ["", "stop stage", "stop rank", "ignores SIGTERM"])
@pytest.mark.parametrize("killed", ["launcher", "stage"])
def test_stage_and_ranks_end_when_their_parent_is_killed(
    tmp_path: Path, started: list[int], killed: str, stopped: str
) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    if stopped:
        (tmp_path / stopped).touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)], env=environment)
    started.append(launcher.pid)
    stage, rank = pid_in(tmp_path / "stage"), pid_in(tmp_path / "rank")
    started += [stage, rank]
    if stopped.startswith("stop"):
        name = stage if stopped == "stop stage" else rank
        while state_of(name) != "T":
            time.sleep(0.02)
    os.kill(launcher.pid if killed == "launcher" else stage, signal.SIGKILL)
    end = time.monotonic() + 20
    wanted = [stage, rank] if killed == "launcher" else [rank]
    while any(state_of(pid) != "Z" for pid in wanted):
        assert time.monotonic() < end, {pid: state_of(pid) for pid in wanted}
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
