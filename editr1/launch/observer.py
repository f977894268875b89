"""Who watches a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from editr1.runs.record import StageRecord


class Observer(Protocol):
    """Who watches a run: the terminal, a log, a test."""

    def run_waits(self, reason: str) -> None:
        """The run does not begin yet, and why."""

    def stage_started(self, stage: StageRecord) -> None:
        """An attempt begins."""

    def stage_progress(self, stage: StageRecord, line: Mapping[str, Any]) -> None:
        """A progress line (see editr1.telemetry.progress)."""

    def stage_ended(self, stage: StageRecord) -> None:
        """The stage is done, failed or interrupted."""

    def stage_skipped(self, stage: StageRecord, reason: str) -> None:
        """The stage need not run."""

    def stage_retried(self, stage: StageRecord, reason: str, delay: float) -> None:
        """Another attempt follows in ``delay`` seconds."""

    def service_ready(self, stage: StageRecord, urls: tuple[str, ...]) -> None:
        """A service answers at ``urls``."""

    def stage_waits(self, stage: StageRecord, reason: str) -> None:
        """The stage does not get on, and why."""
