"""What a stage in a pod leaves in the store while it runs: progress, attempts, last log lines, spans.

All lie below the stage's prefix (see :func:`editr1.runs.record.stage_prefix`), so that whoever reads the store knows how
far a run is, with or without a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from editr1.artifacts import ArtifactStore
from editr1.runs.record import stage_prefix
from editr1.telemetry import json_lines


class _Live(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LiveProgress(_Live):
    """How far the stage is; times in seconds since the epoch."""

    t: float
    phase: str
    done: int
    total: int
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds_left: float | None = None
    """Estimate from this phase's own speed; None while it has none."""


class PodAttempt(_Live):
    """One start of a stage in a pod; times in seconds since the epoch."""

    pod: str
    uid: str
    node: str = ""
    started: float
    ended: float | None = None
    exit_code: int | None = None
    reason: str = ""
    submission: str = ""
    """Trace of who submitted it: a release that is installed anew has its retries anew."""
    checkpoint: str = ""
    """Newest checkpoint when it began; empty for none."""
    leaving: bool = False
    """It was asked to leave: if it says no more than that, its time was over."""

    @property
    def id(self) -> str:
        """Name under which the attempt's files lie: pod and the start of its uid."""
        return f"{self.pod}.{self.uid[:8]}" if self.uid else self.pod


class PhaseSpeed:
    """Takes a stage's progress lines (see editr1.telemetry.progress) as they come, and says how far it is."""

    def __init__(self) -> None:
        self._first: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] = {}
        self._metrics: dict[str, float] = {}

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take the next lines."""
        for line in lines:
            first = self._first
            if first is None or line["phase"] != first["phase"] or line["done"] < self._last["done"]:
                self._first, self._metrics = line, {}
            self._last = line
            self._metrics = line.get("metrics", self._metrics)

    def now(self) -> LiveProgress | None:
        """The state after the last line; None before the first.

        The time left is what the current phase needs at its mean speed since its first line.
        """
        if self._first is None:
            return None
        first, last = self._first, self._last
        steps, seconds = last["done"] - first["done"], last["t"] - first["t"]
        return LiveProgress(
            t=last["t"],
            phase=last["phase"],
            done=last["done"],
            total=last["total"],
            metrics=self._metrics,
            seconds_left=(last["total"] - last["done"]) * seconds / steps if steps > 0 else None,
        )


def retries_used(attempts: Iterable[PodAttempt]) -> int:
    """Attempts that ended by a fault of their own that was worth a retry; being asked to leave (143) does not count."""
    return sum(1 for item in attempts if item.exit_code is not None and item.exit_code >= 128 and item.exit_code != 143)


def vanished(attempts: Iterable[PodAttempt], checkpoint: str) -> int:
    """Attempts that ended without a word, and without a checkpoint after ``checkpoint``.

    So ends a pod whose node died, and one that was killed for memory as a whole (cgroup v2): while checkpoints come, it
    may go on; where none does, it would begin for ever.
    """
    return sum(1 for item in attempts if item.exit_code is None and not item.leaving and item.checkpoint == checkpoint)


class LiveFiles:
    """Reads and writes the live files of one stage."""

    def __init__(self, store: ArtifactStore, run: str, stage: str, key: str) -> None:
        self._store, self._prefix = store, stage_prefix(run, stage, key)

    def write_progress(self, progress: LiveProgress) -> None:
        """Replace the progress."""
        self._store.put_record(self._prefix + "live.json", progress.model_dump_json().encode())

    def progress(self) -> LiveProgress | None:
        """The last progress, None before the first."""
        data = self._store.get_record(self._prefix + "live.json")
        return None if data is None else LiveProgress.model_validate_json(data)

    def write_attempt(self, attempt: PodAttempt) -> None:
        """Write an attempt's start or end."""
        self._store.put_record(f"{self._prefix}attempts/{attempt.id}.json", attempt.model_dump_json().encode())

    def attempts(self) -> list[PodAttempt]:
        """Every attempt, in order of start."""
        found = [self._store.get_record(key) for key in self._store.list_records(self._prefix + "attempts/")]
        return sorted(
            (PodAttempt.model_validate_json(data) for data in found if data is not None), key=lambda item: item.started
        )

    def write_log(self, attempt: PodAttempt, lines: Iterable[str]) -> None:
        """Replace the last log lines of an attempt."""
        self._store.put_record(f"{self._prefix}logs/{attempt.id}.txt", ("\n".join(lines) + "\n").encode())

    def logs(self) -> dict[str, str]:
        """Attempt id to its last log lines."""
        return self._texts("logs/", ".txt")

    def write_spans(self, attempt: PodAttempt, data: bytes) -> None:
        """Replace the spans (JSON lines) of an attempt."""
        self._store.put_record(f"{self._prefix}spans/{attempt.id}.jsonl", data)

    def spans(self) -> list[dict[str, Any]]:
        """The spans of every attempt."""
        return [item for text in self._texts("spans/", ".jsonl").values() for item in json_lines(text)]

    def _texts(self, folder: str, suffix: str) -> dict[str, str]:
        texts = {}
        for key in self._store.list_records(self._prefix + folder):
            data = self._store.get_record(key)
            if data is not None:
                texts[key.rsplit("/", 1)[1].removesuffix(suffix)] = data.decode(errors="replace")
        return texts
