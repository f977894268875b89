"""The run's record in the store, made from the status: what the local backend would have written."""

from __future__ import annotations

from collections.abc import Mapping

from editr1.launch.kubernetes.run_status import RECORD_STATES, Reason, RunState, RunStatus, stage_record
from editr1.runs.record import RunRecord, State
from editr1.runs.resolve import full_config
from editr1.runs.spec import RunBody


def record_of(base: RunRecord, spec: RunBody, status: RunStatus, facts: Mapping[str, Mapping[str, str]]) -> RunRecord:
    """``base`` (name, versions, machine) with what the status says. ``facts`` holds image and chart by stage."""
    record = base.model_copy(deep=True)
    record.seed = spec.seed
    record.state = State.RUNNING if status.state is RunState.WAITING else RECORD_STATES[status.state]
    if status.reason is not Reason.UP_TO_DATE:
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
        made = stage_record(entry)
        made.kind, made.config = str(stage.kind), full_config(stage.kind, stage.config, spec.seed)
        made.attempts = made.attempts or (before.attempts if before else [])
        made.reason = "" if entry.state is RunState.DONE else entry.message
        made.image = told.get("image") or (before.image if before else "")
        made.chart = told.get("chart") or (before.chart if before else "")
        record.stages[stage.name] = made
    return record
