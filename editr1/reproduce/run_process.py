"""The process of one experiment. It executes ``editr1 run`` with the run file of the experiment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from editr1.artifacts import ArtifactStore
from editr1.launch.local.processes import wait_or_kill
from editr1.launch.orchestrator import GRACE_SECONDS
from editr1.runs.job import PARENT_VARIABLE
from editr1.runs.kinds import Kind
from editr1.runs.record import State, load_record
from editr1.runs.spec import RunSpec
from editr1.telemetry.progress import ProgressReader

FILE, LOG, PROGRESS_FILES = "run.yaml", "run.log", "progress-*.jsonl"
GRACE = 2 * GRACE_SECONDS + 30
"""Maximum time in seconds that a run needs to stop. It first stops its stage, and then the reward server."""


class RunProcess:
    """A process that executes the run ``spec``. Its run file and its log are in the folder ``runs/<run>``."""

    def __init__(self, spec: RunSpec, runs: Path) -> None:
        self._name = spec.metadata.name
        self._folder = runs / self._name
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / FILE
        file.write_text(yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False))
        self._readers = {path: ProgressReader(path, skip_existing=True) for path in self._progress_files()}
        self._start_time, self._start_monotonic = time.time(), time.monotonic()
        with (self._folder / LOG).open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "editr1.cli.main", "run", str(file), "--runs-dir", str(runs), "--replace"],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._process.poll()

    def seconds(self) -> float:
        """Return the number of seconds since the start of the process."""
        return time.monotonic() - self._start_monotonic

    def progress(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the progress lines that the stages wrote since the last call, as (stage, line)."""
        for path in self._progress_files():
            self._readers.setdefault(path, ProgressReader(path))
        return [(path.parent.name, line) for path, reader in self._readers.items() for line in reader.new()]

    def request_stop(self) -> None:
        """Request that the run commits a checkpoint and stops."""
        if self.poll() is None:
            self._process.terminate()

    def wait(self, grace: float) -> None:
        """Wait for the process to end. Kill it after ``grace`` seconds; the kernel then ends its stage processes."""
        wait_or_kill(self._process, grace)

    def failure_reason(self, store: ArtifactStore) -> str:
        """Return the reason why the run failed: the reason of the failed stage or, if no stage failed, the last line of the output."""
        record = load_record(store, self._name)
        for stage in record.stages.values() if record else ():
            if stage.state is State.FAILED and stage.attempts and (stage.attempts[-1].ended or 0) > self._start_time:
                return f"stage {stage.name}: {stage.reason}"
        output = (self._folder / LOG).read_bytes()[self._log_start :].decode(errors="replace").split("\n")
        line = next((line.strip() for line in reversed(output) if line.strip()), "no output")
        return f"exit code {self.poll()}: {line}"

    def _progress_files(self) -> list[Path]:
        return sorted(self._folder.glob(f"stages/*/{PROGRESS_FILES}"))


def _environment() -> dict[str, str]:
    """Return the environment of a run: the environment of this process without variables that override the run file.

    By default, a run uses one thread, so that metrics do not depend on the number of cores, and runs do not compete
    for cores.
    """
    prefixes = tuple(f"EDITR1_{name.upper()}__" for name in ("run", *Kind))
    overrides = {name for name in os.environ if name.startswith(prefixes) or name == "EDITR1_STORE"}
    kept = {name: value for name, value in os.environ.items() if name not in overrides}
    return {"OMP_NUM_THREADS": "1", **kept, "PYTHONSAFEPATH": "1", PARENT_VARIABLE: str(os.getpid())}
