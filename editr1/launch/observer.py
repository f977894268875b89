"""Protocol of observers, which are notified of the events of a run, for example to print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from editr1.runs.record import StageRecord


class Observer(Protocol):
    """Interface for receivers of run events.

    Each method is called when the event described in its docstring occurs.
    """

    def run_waits(self, reason: str) -> None:
        """The run cannot start yet because of ``reason``."""

    def stage_started(self, stage: StageRecord) -> None:
        """An attempt of the stage has started."""

    def stage_progress(self, stage: StageRecord, line: Mapping[str, Any]) -> None:
        """The stage wrote a progress line (see editr1.telemetry.progress)."""

    def stage_ended(self, stage: StageRecord) -> None:
        """The stage has ended: it is done, has failed or was interrupted."""

    def stage_skipped(self, stage: StageRecord, reason: str) -> None:
        """The stage is skipped because of ``reason``, for example because its result already exists."""

    def stage_retried(self, stage: StageRecord, reason: str, delay: float) -> None:
        """An attempt has failed because of ``reason``, and the next one starts in ``delay`` seconds."""

    def service_ready(self, stage: StageRecord, urls: tuple[str, ...]) -> None:
        """The reward service is ready and can be reached at ``urls``."""

    def stage_waits(self, stage: StageRecord, reason: str) -> None:
        """The stage waits because of ``reason``, such as a pod that cannot be scheduled."""
