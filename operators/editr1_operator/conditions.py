"""The whole run in one line and three conditions, from its stages: pure."""

from __future__ import annotations

from editr1.durations import format_timestamp
from editr1.launch.kubernetes.run_status import Reason, RunCondition, RunState, RunStatus, StageStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.spec import RunBody

_ACTIVE = (RunState.STARTING, RunState.RUNNING)
_COMING = (Reason.RETRYING, Reason.QUEUED)


def summarised(status: RunStatus, spec: RunBody, generation: int, now: float) -> RunStatus:
    """``status`` with its own state, columns and conditions made from its stages."""
    work = [stage for stage in status.stages if not KINDS[_kind(spec, stage)].service]
    active = [stage for stage in work if stage.state in _ACTIVE or (stage.reason in _COMING and not stage.over)]
    failed = [stage for stage in status.stages if stage.state is RunState.FAILED]
    held = any(stage.state is RunState.SUSPENDED for stage in work)
    speaks: StageStatus | None = None
    if active:
        speaks = next((stage for stage in active if stage.state is RunState.STARTING), active[0])
        begun = any(stage.attempts for stage in work) or any(stage.state is RunState.RUNNING for stage in active)
        state = RunState.RUNNING if begun else RunState.STARTING
        if all(stage.reason is Reason.QUEUED for stage in active):
            state = RunState.WAITING
        reason, message = speaks.reason, f"{speaks.name}: {speaks.message}" if speaks.message else ""
    elif failed and not held:  # what is held goes on when it is resumed
        speaks, state = failed[0], RunState.FAILED
        reason, message = speaks.reason, f"{speaks.name}: {speaks.message}"
    elif all(stage.state is RunState.DONE for stage in work):
        stood = all(stage.reason is Reason.STANDS for stage in work)
        state, reason = RunState.DONE, Reason.STANDS if stood else Reason.DONE
        message = "every stage already stood" if stood else ""
    elif spec.suspend:
        state, reason, message = RunState.SUSPENDED, Reason.SUSPENDED, "editr1 resume lets it go on"
    else:
        speaks = next((stage for stage in work if not stage.over), None)
        state, reason = RunState.WAITING, speaks.reason if speaks else None
        message = f"{speaks.name}: {speaks.message}" if speaks and speaks.message else ""
    over = state in (RunState.DONE, RunState.FAILED)
    shown = active or ([speaks] if speaks else [])
    changed = status.model_copy(
        update={
            "observed_generation": generation,
            "state": state,
            "stage": ", ".join(stage.name for stage in shown),
            "progress": ", ".join(stage.progress for stage in active if stage.progress),
            "reason": reason,
            "message": message,
            "started": status.started or now,
            "ended": (status.ended or now) if over else None,
        }
    )
    return with_conditions(changed, generation, now)


def refused(status: RunStatus, reason: Reason, message: str, generation: int, now: float) -> RunStatus:
    """A run that cannot go on whatever happens to its stages."""
    changed = status.model_copy(
        update={
            "observed_generation": generation,
            "state": RunState.FAILED,
            "reason": reason,
            "message": message,
            "started": status.started or now,
            "ended": status.ended or now,
        }
    )
    return with_conditions(changed, generation, now)


def with_conditions(status: RunStatus, generation: int, now: float) -> RunStatus:
    """Ready, Progressing and Failed; the time of one that did not change stays."""
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


def _kind(spec: RunBody, stage: StageStatus) -> Kind:
    return next(item.kind for item in spec.stages if item.name == stage.name)
