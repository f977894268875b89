"""The run's record in the store, made from the status: what the local backend would have written."""

from __future__ import annotations

from collections.abc import Mapping

from editr1.runs.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.record import Attempt, RunRecord, StageRecord, State
from editr1.runs.resolve import full_config
from editr1.runs.spec import RunBody

_STATES = {
    RunState.WAITING: State.PENDING,
    RunState.STARTING: State.RUNNING,
    RunState.RUNNING: State.RUNNING,
    RunState.SUSPENDED: State.INTERRUPTED,
    RunState.DONE: State.DONE,
    RunState.FAILED: State.FAILED,
}


def record_of(base: RunRecord, spec: RunBody, status: RunStatus, facts: Mapping[str, Mapping[str, str]]) -> RunRecord:
    """``base`` (name, versions, machine) with what the status says. ``facts`` holds image and chart by stage."""
    record = base.model_copy(deep=True)
    record.seed = spec.seed
    record.state = State.RUNNING if status.state is RunState.WAITING else _STATES[status.state]
    if status.reason is not Reason.STANDS:
        record.created, record.ended = status.started or base.created, status.ended
    known = record.stages
    record.stages = {}
    for stage in spec.stages:
        entry = status.stage_of(stage.name)
        if entry is None or not entry.key:
            continue
        before = known.get(stage.name)
        if before is not None and before.key != entry.key:
            before = None
        told = facts.get(stage.name, {})
        record.stages[stage.name] = StageRecord(
            name=stage.name,
            kind=str(stage.kind),
            key=entry.key,
            state=_STATES[entry.state],
            inputs=entry.inputs,
            outputs=entry.outputs,
            metrics=entry.metrics,
            config=full_config(stage.kind, stage.config, spec.seed),
            attempts=_attempts(entry) or (before.attempts if before else []),
            reason="" if entry.state is RunState.DONE else entry.message,
            release=entry.release,
            image=told.get("image") or (before.image if before else ""),
            chart=told.get("chart") or (before.chart if before else ""),
        )
    return record


def _attempts(entry: StageStatus) -> list[Attempt]:
    return [
        Attempt(started=item.started, ended=item.ended, exit_code=item.exit_code, reason=item.reason)
        for item in entry.attempts
    ]
