"""Files that a stage in a pod writes to the store while it runs: progress, attempts, recent log lines and spans.

All keys begin with the stage's prefix (:func:`editr1.runs.record.stage_prefix`), so the state of a run can be read from
the store without a cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from editr1.artifacts import ArtifactStore
from editr1.errors import ExitCode, is_retryable
from editr1.runs.await_result import await_result
from editr1.runs.record import stage_prefix
from editr1.runs.stored import DamagedRecord, dump_stored, parse_stored
from editr1.telemetry import json_lines

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)


class _Live(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LiveProgress(_Live):
    """Latest progress of a stage, reported at time ``t`` (seconds since the epoch)."""

    t: float
    phase: str
    done: int
    total: int
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds_left: float | None = None
    """Estimated remaining time in seconds, based on the speed in the current phase; None if the speed is not known yet."""


class PodAttempt(_Live):
    """One attempt of a stage in a pod. Times are in seconds since the epoch."""

    pod: str
    uid: str
    node: str = ""
    started: float
    ended: float | None = None
    exit_code: int | None = None
    reason: str = ""
    submission: str = ""
    """OpenTelemetry trace id of the submission. Resubmitting creates a new id, so that retries are counted from zero again."""
    checkpoint: str = ""
    """Store key of the newest checkpoint when the attempt started; empty if there was none."""
    leaving: bool = False
    """True after the pod received SIGTERM. An attempt without exit code was then killed at the end of the pod's grace period."""

    @property
    def id(self) -> str:
        """Name of the attempt's files: the pod's name and the first 8 characters of its uid."""
        return f"{self.pod}.{self.uid[:8]}" if self.uid else self.pod


class ProgressEstimator:
    """Estimator for the remaining time of a stage.

    It uses the lines of the progress file (see editr1.telemetry.progress).
    """

    def __init__(self) -> None:
        self._first: Mapping[str, Any] | None = None
        self._last: Mapping[str, Any] = {}
        self._metrics: dict[str, float] = {}

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add new lines of the progress file."""
        for line in lines:
            first = self._first
            if first is None or line["phase"] != first["phase"] or line["done"] < self._last["done"]:
                self._first, self._metrics = line, {}
            self._last = line
            self._metrics = line.get("metrics", self._metrics)

    def current(self) -> LiveProgress | None:
        """Return the progress as of the last line; None if there is no line yet.

        The remaining time assumes the mean speed since the first line of the current phase.
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


def uses_retry(exit_code: int) -> bool:
    """Return True if an attempt with this exit code uses up a retry.

    An attempt ended by SIGTERM (exit code 143) does not.
    """
    return is_retryable(exit_code) and exit_code != ExitCode.TERMINATED


def retries_used(attempts: Iterable[PodAttempt]) -> int:
    """Count the attempts of a pod that used up a retry."""
    return sum(1 for item in attempts if item.exit_code is not None and uses_retry(item.exit_code))


def lost_attempts(attempts: Iterable[PodAttempt], checkpoint: str) -> int:
    """Count the attempts that started when ``checkpoint`` was the newest checkpoint, and ended without an exit code.

    An attempt ends this way if its node fails, or if the whole pod is killed for lack of memory (cgroup v2). A limit on
    this count prevents a stage that writes no new checkpoint from restarting forever.
    """
    return sum(1 for item in attempts if item.exit_code is None and not item.leaving and item.checkpoint == checkpoint)


class LiveFiles:
    """Files that one stage writes to the artifact store while it runs (see :mod:`editr1.runs.live`)."""

    def __init__(self, store: ArtifactStore, run: str, stage: str, key: str) -> None:
        self._store, self._prefix = store, stage_prefix(run, stage, key)
        self._where = (store, run, stage, key)

    def has_result(self) -> bool:
        """Return True if the stage has committed its result, and False if none appears within the time limit of :func:`await_result`."""
        return await_result(*self._where) is not None

    def write_progress(self, progress: LiveProgress) -> None:
        """Write the current progress. It replaces the previous one."""
        self._store.put_record(self._prefix + "live.json", dump_stored(progress))

    def progress(self) -> LiveProgress | None:
        """Return the latest progress; None if there is none yet, or if its record is damaged."""
        return self._parsed(LiveProgress, self._prefix + "live.json")

    def write_attempt(self, attempt: PodAttempt) -> None:
        """Write the current state of an attempt."""
        self._store.put_record(f"{self._prefix}attempts/{attempt.id}.json", dump_stored(attempt))

    def attempts(self) -> list[PodAttempt]:
        """Return all attempts in order of their start. Attempts with damaged records are omitted."""
        found = [self._parsed(PodAttempt, key) for key in self._store.list_records(self._prefix + "attempts/")]
        return sorted((item for item in found if item is not None), key=lambda item: item.started)

    def write_log(self, attempt: PodAttempt, lines: Iterable[str]) -> None:
        """Write the last log lines of an attempt. They replace the previous ones."""
        self._store.put_record(f"{self._prefix}logs/{attempt.id}.txt", ("\n".join(lines) + "\n").encode())

    def logs(self) -> dict[str, str]:
        """Return the last log lines of each attempt, by attempt id."""
        return self._texts("logs/", ".txt")

    def write_spans(self, attempt: PodAttempt, data: bytes) -> None:
        """Write all spans of an attempt as JSON lines. They replace the previous ones."""
        self._store.put_record(f"{self._prefix}spans/{attempt.id}.jsonl", data)

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans of all attempts."""
        return [item for text in self._texts("spans/", ".jsonl").values() for item in json_lines(text)]

    def _parsed(self, kind: type[M], key: str) -> M | None:
        """Parse a record that only serves as information. If it is damaged, log a warning and return None."""
        data = self._store.get_record(key)
        if data is None:
            return None
        try:
            return parse_stored(kind, data, f"{self._store.url}: records/{key}", remedy="it is ignored")
        except DamagedRecord as error:
            log.warning("%s", error)
            return None

    def _texts(self, folder: str, suffix: str) -> dict[str, str]:
        texts = {}
        for key in self._store.list_records(self._prefix + folder):
            data = self._store.get_record(key)
            if data is not None:
                texts[key.rsplit("/", 1)[1].removesuffix(suffix)] = data.decode(errors="replace")
        return texts
