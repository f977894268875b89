"""Checkpoints of a stage that wait on the local disk until the artifact store answers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from editr1.artifacts.hashing import file_sha256
from editr1.runs.job import StageJob

MAX_WAITING: Final = 2
"""Number of checkpoints that wait at most. A new one replaces the oldest."""
_INDEX: Final = "waiting.json"

log = logging.getLogger("editr1.stage")


class WaitingCheckpoints:
    """Queue of checkpoints in a folder of the job. It outlives the process: the next attempt on the same machine finds them.

    Each checkpoint is in a folder that is named after its step. Several threads can use a queue.
    """

    def __init__(self, job: StageJob) -> None:
        self.folder = job.workdir / f"waiting-{job.key[:12]}"
        self._key, self._lock = job.key, threading.Lock()
        self._in_use: int | None = None

    def add(self, folder: Path, step: int) -> None:
        """Keep a copy of the checkpoint in ``folder``. If too many wait, remove the oldest one that is not being written."""
        with self._lock:
            part, target = self.folder / f"{step:09d}.part", self._path(step)
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part / "files", copy_function=_link)
            digests = {
                path.relative_to(part / "files").as_posix(): file_sha256(path)
                for path in sorted((part / "files").rglob("*"))
                if path.is_file()
            }
            (part / _INDEX).write_text(json.dumps({"key": self._key, "step": step, "files": digests}))
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            others = [item for item in self._steps() if item not in (step, self._in_use)]
            kept = MAX_WAITING - (1 if self._in_use in (None, step) else 2)
            for old in others[: max(0, len(others) - kept)]:
                shutil.rmtree(self._path(old), ignore_errors=True)

    def write_all(self, write: Callable[[Path, int], None]) -> int:
        """Call ``write(folder, step)`` for each waiting checkpoint, the oldest first, and remove those that it wrote.

        Damaged checkpoints, for example after a power failure, are removed with a warning. Returns the number of checkpoints
        that were written. An error of ``write`` ends the call.
        """
        written = 0
        while (step := self._begin()) is not None:
            try:
                folder = self._path(step)
                if self._is_intact(folder, step):
                    write(folder / "files", step)
                    written += 1
                else:
                    log.warning("%s: the waiting checkpoint is damaged and is removed", folder)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                self._in_use = None
        return written

    def discard(self) -> None:
        """Remove all waiting checkpoints, because the outputs of the stage are complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> int | None:
        with self._lock:
            self._in_use = min(self._steps(), default=None)
            return self._in_use

    def _steps(self) -> list[int]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:09d}"

    def _is_intact(self, folder: Path, step: int) -> bool:
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            files = {str(folder / "files" / name): digest for name, digest in index["files"].items()}
            return (index["key"], index["step"]) == (self._key, step) and all(
                file_sha256(Path(path)) == digest for path, digest in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def _link(source: str, target: str) -> None:
    """Link a file, so that no space is needed while the trainer keeps its checkpoint, or copy it if that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
