"""Progress of a stage as JSON lines, and the hooks through which long work reports, checkpoints and stops.

A stage process writes ``progress.jsonl``; whoever launched it (terminal, operator) draws the bar. Method code knows
only :class:`TrainHooks`.
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
    """Appends one JSON object a step: ``{"t", "phase", "done", "total", "metrics"}``. ``path`` None keeps silent."""

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        self._phase = ""
        self._done = 0
        self._total = 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of ``total`` steps, ``done`` of them already behind (a resumed stage)."""
        self._phase, self._total, self._done = name, total, done
        self._write({})

    def step(self, n: int = 1, **metrics: float) -> None:
        """``n`` more steps are done; ``metrics`` are the figures of this moment."""
        self._done += n
        self._write(metrics)

    def _write(self, metrics: Mapping[str, float]) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"t": time.time(), "phase": self._phase, "done": self._done, "total": self._total}
        figures = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if figures:
            line["metrics"] = figures
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class ProgressReader:
    """The lines that :class:`Progress` appends to a file, each read once; the file need not be there yet.

    ``skip_existing`` leaves out the lines that were written before.
    """

    def __init__(self, path: Path, *, skip_existing: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if skip_existing and path.is_file() else 0

    def new(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; one that is still being written waits for the next."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return list(json_lines(whole))


def json_lines(data: bytes | str) -> Iterator[dict[str, Any]]:
    """The JSON objects of ``data``, one a line; what is none is left out.

    A writer that was killed leaves half a line, and the next attempt's first line stands behind it.
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
    """Raised by long work after ``should_stop`` said yes and a checkpoint was committed. The stage exits with 143."""

    exit_code = ExitCode.TERMINATED


@dataclass(frozen=True)
class TrainHooks:
    """What a stage hands to a method room.

    ``should_stop`` is asked after every step; when it says yes the work writes a checkpoint folder, calls
    ``on_checkpoint(folder, step)`` and raises :class:`Interrupted`. ``resume_from`` is a folder that an earlier
    ``on_checkpoint`` was given.
    """

    progress: Progress = field(default_factory=Progress)
    should_stop: Callable[[], bool] = _never
    on_checkpoint: Callable[[Path, int], None] = _ignore
    resume_from: Path | None = None
