"""Protocol for objects that are notified of the events of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from editr1.runs.record import StageRecord


class Observer(Protocol):
    """Receives the events of a run, for example to print them on the terminal."""

    def run_waits(self, reason: str) -> None:
        """The run has not started yet because of ``reason``."""

    def stage_started(self, stage: StageRecord) -> None:
        """An attempt has started."""

    def stage_progress(self, stage: StageRecord, line: Mapping[str, Any]) -> None:
        """The stage wrote a progress line (see editr1.telemetry.progress)."""

    def stage_ended(self, stage: StageRecord) -> None:
        """The stage is done, has failed or was interrupted."""

    def stage_skipped(self, stage: StageRecord, reason: str) -> None:
        """The stage does not have to run."""

    def stage_retried(self, stage: StageRecord, reason: str, delay: float) -> None:
        """The stage is retried in ``delay`` seconds."""

    def service_ready(self, stage: StageRecord, urls: tuple[str, ...]) -> None:
        """The service is ready at ``urls``."""

    def stage_waits(self, stage: StageRecord, reason: str) -> None:
        """The stage makes no progress because of ``reason``."""
