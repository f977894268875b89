"""Kubernetes events for the changes between two statuses of a run: pure functions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus

MAX_MESSAGE_LENGTH = 1000
"""Maximum number of characters of an event's message; the API server accepts 1024 bytes."""
_NORMAL_REASONS = {
    None,
    Reason.INPUTS_MISSING,
    Reason.SERVICE_STARTING,
    Reason.PODS_STARTING,
    Reason.QUEUED,
    Reason.RUNNING,
    Reason.SUSPENDED,
    Reason.DONE,
    Reason.UP_TO_DATE,
}
_ACTIVE = (RunState.STARTING, RunState.RUNNING)


def changes(before: RunStatus, after: RunStatus) -> Iterator[dict[str, Any]]:
    """Yield an event for each stage whose state, reason or number of failures changed, and one for the end of the run.

    Stages that wait for inputs produce no event.
    """
    for stage in after.stages:
        known = before.stage_of(stage.name)
        reported = (known.state, known.reason, len(known.attempts), known.failures) if known else None
        if reported == (stage.state, stage.reason, len(stage.attempts), stage.failures):
            continue
        if stage.reason in (None, Reason.INPUTS_MISSING, Reason.STAGE_FAILED):
            continue
        lost = known is not None and stage.failures > known.failures and stage.state in _ACTIVE
        reason = Reason.NODE_LOST if lost else stage.reason
        message = "a pod was lost and is created again" if lost else stage.message
        yield _event(reason, f"{stage.name}: {message}" if message else f"{stage.name} is {stage.state.lower()}")
    if after.state != before.state and after.state in (RunState.DONE, RunState.FAILED, RunState.SUSPENDED):
        yield _event(after.reason, after.message or f"the run is {after.state.lower()}")


def _event(reason: Reason | None, message: str) -> dict[str, Any]:
    now = format_timestamp(time.time())
    return {
        "type": "Normal" if reason in _NORMAL_REASONS else "Warning",
        "reason": str(reason),
        "message": message[:MAX_MESSAGE_LENGTH],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "editr1-operator"},
        "reportingComponent": "editr1-operator",
        "reportingInstance": "",
    }
