"""Compute the status of a whole run from the status of its stages: state, columns of ``kubectl get``, and conditions.

All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import Reason, RunCondition, RunState, RunStatus, StageStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.spec import RunBody

_ACTIVE = (RunState.STARTING, RunState.RUNNING)
_HELD = (Reason.QUEUED, Reason.HELD)
_ABOUT_TO_START = (Reason.RETRYING, *_HELD)


@dataclass(frozen=True)
class _Summary:
    state: RunState
    reason: Reason | None
    message: str = ""
    stages: Sequence[StageStatus] = ()
    """Stages that ``kubectl get`` shows in the column ``Stage``."""


def summarize(status: RunStatus, spec: RunBody, generation: int, now: float) -> RunStatus:
    """Return a copy of ``status`` in which the fields of the run itself are computed from its stages."""
    jobs = [stage for stage in status.stages if not KINDS[_kind(spec, stage)].service]
    active = [stage for stage in jobs if _is_active(stage)]
    summary = _summarize(status, spec, jobs, active)
    over = summary.state in (RunState.DONE, RunState.FAILED)
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "state": summary.state,
        "stage": ", ".join(stage.name for stage in summary.stages),
        "progress": ", ".join(stage.progress for stage in active if stage.progress),
        "reason": summary.reason,
        "message": summary.message,
        "started": status.started or now,
        "ended": (status.ended or now) if over else None,
    }
    return with_conditions(status.model_copy(update=changes), generation, now)


def reject(status: RunStatus, reason: Reason, message: str, generation: int, now: float) -> RunStatus:
    """Return the status of a run that is rejected as a whole, for example because its spec is invalid.

    The status of its stages is not changed.
    """
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "state": RunState.FAILED,
        "reason": reason,
        "message": message,
        "started": status.started or now,
        "ended": status.ended or now,
    }
    return with_conditions(status.model_copy(update=changes), generation, now)


def with_conditions(status: RunStatus, generation: int, now: float) -> RunStatus:
    """Return a copy of ``status`` with the conditions Ready, Progressing and Failed.

    The transition time of a condition changes only if its status changes.
    """
    reason = str(status.reason or Reason.INPUTS_MISSING)
    values = {
        "Ready": status.state is RunState.DONE,
        "Progressing": status.state in (RunState.WAITING, *_ACTIVE),
        "Failed": status.state is RunState.FAILED,
    }
    before = {condition.type: condition for condition in status.conditions}
    conditions = []
    for name, holds in values.items():
        text = "True" if holds else "False"
        known = before.get(name)
        same = known is not None and known.status == text
        conditions.append(
            RunCondition(
                type=name,
                status=text,
                reason=reason,
                message=status.message,
                last_transition_time=known.last_transition_time if known and same else format_timestamp(now),
                observed_generation=generation,
            )
        )
    return status.model_copy(update={"conditions": conditions})


def _summarize(
    status: RunStatus, spec: RunBody, jobs: Sequence[StageStatus], active: Sequence[StageStatus]
) -> _Summary:
    if active:
        return _summarize_active(jobs, active)
    failed = [stage for stage in status.stages if stage.state is RunState.FAILED]
    suspended = any(stage.state is RunState.SUSPENDED for stage in jobs)
    if failed and not suspended:  # A suspended stage continues when the run is resumed.
        return _Summary(RunState.FAILED, failed[0].reason, f"{failed[0].name}: {failed[0].message}", failed[:1])
    if all(stage.state is RunState.DONE for stage in jobs):
        return _summarize_done(jobs)
    if spec.suspend:
        return _Summary(RunState.SUSPENDED, Reason.SUSPENDED, "suspended; use editr1 resume to continue")
    waiting = next((stage for stage in jobs if not stage.over), None)
    if waiting is None:
        return _Summary(RunState.WAITING, None)
    return _Summary(RunState.WAITING, waiting.reason, _message_of(waiting), [waiting])


def _summarize_active(jobs: Sequence[StageStatus], active: Sequence[StageStatus]) -> _Summary:
    """Summarize a run with active stages.

    Reason and message are taken from the first stage that is starting or, if no stage is starting, from the first
    active stage.
    """
    first = next((stage for stage in active if stage.state is RunState.STARTING), active[0])
    if all(stage.reason in _HELD for stage in active):
        state = RunState.WAITING
    elif any(stage.attempts for stage in jobs) or any(stage.state is RunState.RUNNING for stage in active):
        state = RunState.RUNNING
    else:
        state = RunState.STARTING
    return _Summary(state, first.reason, _message_of(first), active)


def _summarize_done(jobs: Sequence[StageStatus]) -> _Summary:
    if all(stage.reason is Reason.UP_TO_DATE for stage in jobs):
        return _Summary(RunState.DONE, Reason.UP_TO_DATE, "all stages are up to date")
    return _Summary(RunState.DONE, Reason.DONE)


def _is_active(stage: StageStatus) -> bool:
    return stage.state in _ACTIVE or (stage.reason in _ABOUT_TO_START and not stage.over)


def _message_of(stage: StageStatus) -> str:
    return f"{stage.name}: {stage.message}" if stage.message else ""


def _kind(spec: RunBody, stage: StageStatus) -> Kind:
    return next(item.kind for item in spec.stages if item.name == stage.name)
