"""Progress files of stages, and the hooks that connect training code to its stage.

A stage process writes its progress to a file of JSON lines. Its launcher (the command line or the pod wrapper) reads
the file. Training code only uses :class:`TrainHooks`, to report progress, to pass on checkpoints and to stop on
request.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from editr1.errors import Editr1Error, ExitCode


class Progress:
    """Writer of a stage's progress. If ``path`` is None, nothing is written.

    Each call appends a JSON object ``{"t", "phase", "done", "total", "metrics"}``, where ``t`` is the time in seconds since
    the epoch.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self._phase = ""
        self._done = 0
        self._total = 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of ``total`` steps, of which ``done`` were completed before a resume."""
        self._phase, self._total, self._done = name, total, done
        self._write({})

    def step(self, n: int = 1, **metrics: float) -> None:
        """Add ``n`` completed steps and record the current ``metrics``. Metrics that are not finite are omitted."""
        self._done += n
        self._write(metrics)

    def _write(self, metrics: Mapping[str, float]) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"t": time.time(), "phase": self._phase, "done": self._done, "total": self._total}
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if finite:
            line["metrics"] = finite
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class ProgressReader:
    """Reader for new lines in a file written by :class:`Progress`. The file need not exist yet.

    With ``skip_existing``, lines that exist when the reader is created are skipped.
    """

    def __init__(self, path: Path, *, skip_existing: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if skip_existing and path.is_file() else 0

    def new(self) -> list[dict[str, Any]]:
        """Return the JSON objects of the lines that were completed since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(progress_lines(whole))


def json_lines(data: bytes | str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of ``data``, one per line. Invalid lines are skipped.

    An invalid line occurs if an attempt was killed while it wrote a line, and the next attempt appended to this line.
    """
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def progress_lines(data: bytes | str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a progress file. Lines that :class:`Progress` cannot have written, for example damaged ones, are skipped."""
    for line in json_lines(data):
        numbers = [line.get(name) for name in ("t", "done", "total")]
        metrics = line.get("metrics", {})
        values = metrics.values() if isinstance(metrics, dict) else [None]
        if isinstance(line.get("phase"), str) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in (*numbers, *values)
        ):
            yield line


def _never() -> bool:
    return False


def _ignore(_path: Path, _step: int) -> None:
    return None


class Interrupted(Editr1Error):
    """Raised by training code after it saved a checkpoint and stopped on request. The stage exits with code 143."""

    exit_code = ExitCode.TERMINATED


@dataclass(frozen=True)
class TrainHooks:
    """Callbacks that a stage passes to training code.

    Attributes:
        progress: Receives the training's phases, steps and metrics.
        should_stop: Called after every training step. If it returns True, the training code writes a checkpoint, calls
            ``on_checkpoint`` and raises :class:`Interrupted`.
        on_checkpoint: Called as ``on_checkpoint(folder, step)`` with each checkpoint folder.
        resume_from: Checkpoint folder to resume from, or a function that returns it. The function is called once on every rank,
            after the process group was joined, and returns the same checkpoint on all of them. None starts a new training.
    """

    progress: Progress = field(default_factory=Progress)
    should_stop: Callable[[], bool] = _never
    on_checkpoint: Callable[[Path, int], None] = _ignore
    resume_from: Path | Callable[[], Path | None] | None = None

    def find_checkpoint(self) -> Path | None:
        """Return the checkpoint folder to resume from; None starts a new training. Call it once, on every rank."""
        return self.resume_from() if callable(self.resume_from) else self.resume_from
