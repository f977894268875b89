"""Update the record of a run in the artifact store from the status of the run.

The record has the same format as the record of a local run.
"""

from __future__ import annotations

from collections.abc import Mapping

from editr1.launch.kubernetes.run_status import RECORD_STATES, Reason, RunState, RunStatus, stage_record
from editr1.runs.name_in_use import stated_settings
from editr1.runs.record import RunRecord, State
from editr1.runs.resolve import full_config
from editr1.runs.spec import RunBody


def update_record(
    base: RunRecord, spec: RunBody, status: RunStatus, images_and_charts: Mapping[str, Mapping[str, str]]
) -> RunRecord:
    """Return a copy of a record with the current state of the run and of its stages.

    Args:
        base: The previous record of the run.
        spec: Specification of the run.
        status: Current status of the run.
        images_and_charts: Container image and chart of each stage that this process created, by stage name. For all
            other stages, they are taken from ``base``.
    """
    record = base.model_copy(deep=True)
    record.seed, record.stated = spec.seed, stated_settings(spec)
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
        applied = images_and_charts.get(stage.name, {})
        updated = stage_record(entry)
        updated.kind, updated.config = str(stage.kind), full_config(stage.kind, stage.config, spec.seed)
        updated.attempts = updated.attempts or (before.attempts if before else [])
        updated.reason = "" if entry.state is RunState.DONE else entry.message
        updated.image = applied.get("image") or (before.image if before else "")
        updated.chart = applied.get("chart") or (before.chart if before else "")
        record.stages[stage.name] = updated
    return record
