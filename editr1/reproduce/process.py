"""A cell as a process of its own: ``editr1 run`` on the cell's run file, as one would start it by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from editr1.artifacts import ArtifactStore
from editr1.runs.drive import GRACE_SECONDS
from editr1.runs.job import PARENT_VARIABLE
from editr1.runs.record import State, load_record
from editr1.runs.spec import RunSpec
from editr1.telemetry.progress import ProgressReader

FILE, LOG, PROGRESS_FILES = "run.yaml", "run.log", "progress-*.jsonl"


class CellProcess:
    """A started cell. Its run file and its terminal's lines lie in ``runs/<run>``, its artifacts in the spec's store."""

    def __init__(self, spec: RunSpec, runs: Path, environment: Mapping[str, str]) -> None:
        self._name = spec.metadata.name
        self._folder = runs / self._name
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / FILE
        file.write_text(yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False))
        self._readers = {path: ProgressReader(path, after_what_stands=True) for path in self._progress_files()}
        self._started = time.monotonic()
        with (self._folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "editr1.cli.main", "run", str(file), "--runs-dir", str(runs)],
                env={**os.environ, **environment, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    def progress(self) -> list[tuple[str, dict[str, Any]]]:
        """What its stages reported since the last call: (stage, line)."""
        for path in self._progress_files():
            self._readers.setdefault(path, ProgressReader(path))
        return [(path.parent.name, line) for path, reader in self._readers.items() for line in reader.new()]

    def ask_to_stop(self) -> None:
        """Have it commit a checkpoint and end."""
        if self.poll() is None:
            self._process.terminate()

    def end(self, grace: float = GRACE_SECONDS) -> None:
        """Wait until it has ended; after ``grace`` seconds kill it, and the kernel then ends its stages."""
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def why(self, store: ArtifactStore) -> str:
        """Why it ended without its results: the failed stage's reason, else the last line that it printed."""
        record = load_record(store, self._name)
        failed = [stage for stage in record.stages.values() if stage.state is State.FAILED] if record else []
        if failed:
            return f"stage {failed[0].name}: {failed[0].reason}"
        lines = (self._folder / LOG).read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {self.poll()}")

    def _progress_files(self) -> list[Path]:
        return sorted(self._folder.glob(f"stages/*/{PROGRESS_FILES}"))
