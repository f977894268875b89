"""Progress of a stage as JSON lines, and the hooks by which training code reports progress, saves checkpoints and stops.

A stage process writes ``progress.jsonl``; its launcher (the command line or the pod wrapper) reads it. Training code
only uses :class:`TrainHooks`.
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
    """Appends one JSON object per step: ``{"t", "phase", "done", "total", "metrics"}``. Does nothing if ``path`` is None."""

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self._phase = ""
        self._done = 0
        self._total = 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of ``total`` steps, of which a resumed stage has completed ``done``."""
        self._phase, self._total, self._done = name, total, done
        self._write({})

    def step(self, n: int = 1, **metrics: float) -> None:
        """Record ``n`` completed steps and the current ``metrics``; metrics that are not finite are omitted."""
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
    """Incremental reader of the file that :class:`Progress` writes. The file may not exist yet.

    With ``skip_existing``, lines that exist when the reader is created are skipped.
    """

    def __init__(self, path: Path, *, skip_existing: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if skip_existing and path.is_file() else 0

    def new(self) -> list[dict[str, Any]]:
        """Return the lines that were completed since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(json_lines(whole))


def json_lines(data: bytes | str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of ``data``, one per line; invalid lines are skipped.

    A killed writer leaves a partial line, to which the next attempt appends its first line.
    """
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def _never() -> bool:
    return False


def _ignore(_path: Path, _step: int) -> None:
    return None


class Interrupted(Editr1Error):
    """Raised by training code after it stopped on request and committed a checkpoint; the stage exits with 143."""

    exit_code = ExitCode.TERMINATED


@dataclass(frozen=True)
class TrainHooks:
    """Hooks that a stage passes to training code.

    ``should_stop`` is called after every step; if it returns True, the training code writes a checkpoint folder, calls
    ``on_checkpoint(folder, step)`` and raises :class:`Interrupted`. ``resume_from`` is a folder that was passed to
    ``on_checkpoint`` earlier.
    """

    progress: Progress = field(default_factory=Progress)
    should_stop: Callable[[], bool] = _never
    on_checkpoint: Callable[[Path, int], None] = _ignore
    resume_from: Path | None = None
