"""Describe the changes of a run's status as Kubernetes events, which ``kubectl describe`` shows. All functions are pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus

MAX_MESSAGE_LENGTH = 1000
"""Maximum length of an event's message in characters.

It is below the API server's limit of 1024 bytes, because some characters need several bytes.
"""
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
    """Yield an event for each stage that changed between the statuses ``before`` and ``after``.

    A stage counts as changed if its state, its reason, or its number of attempts or failures differs. A stage that
    waits for its inputs, or that does not start because another stage failed, yields no event. An additional event is
    yielded if the run became done, failed or suspended.
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
        message = "a pod was lost with its node and is created again" if lost else stage.message
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
