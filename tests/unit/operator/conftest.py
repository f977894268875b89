"""Builders for the observed state of a run: its specification, status and stages, and the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, EventView, JobView, PodView, ReleaseView
from editr1.runs.record import StageResult
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action
from editr1_operator.decide import Plan, decide
from editr1_operator.observed import ObservedRun, ObservedStage

NOW = 1_800_000_000.0
GENERATION = 3
RESULT = StageResult(key="k", outputs={"rows": "sha256:rows"}, metrics={"cases": 5.0})
POD = PodView("lab-data-master-0", uid="p1", containers=(ContainerView("pytorch", image="editr1/curate:9"),))
RUNS = replace(POD, phase="Running", conditions=(Condition("Ready", "True"),))
NOTHING = ObservedStage(ReleaseView("lab-data", "lab"), result_read=True)
UNREAD = replace(NOTHING, result_read=False)
Part = tuple[StageSpec, StageStatus | None, ObservedStage]


def curate(name: str = "data", **changes: Any) -> StageSpec:
    """A stage without inputs, which can start immediately."""
    return StageSpec.model_validate(
        {"name": name, "kind": "curate", "retries": 2, "pending_timeout_seconds": 600.0, **changes}
    )


def known(stage: str | StageSpec = "data", state: RunState = RunState.RUNNING, **changes: Any) -> StageStatus:
    """Status of a stage that was resolved and launched once, 100 s ago, and whose job was observed."""
    stage = stage if isinstance(stage, StageSpec) else curate(stage)
    fields = {"key": "k", "release": f"lab-{stage.name}", "attempts": [launched(100)], "job_uid": "u1", **changes}
    return StageStatus(name=stage.name, kind=str(stage.kind), state=state, **fields)


def fresh(stage: str | StageSpec = "data", **changes: Any) -> StageStatus:
    """Status of a stage that was resolved and not launched."""
    return known(stage, **{"state": RunState.WAITING, "attempts": [], "job_uid": "", **changes})


def launched(age: float, code: int | None = None, ended: float = 0.0) -> AttemptStatus:
    """An attempt launched ``age`` seconds ago that is running, or that ended with ``code`` ``ended`` seconds ago."""
    return AttemptStatus(started=NOW - age, ended=None if code is None else NOW - ended, exit_code=code)


def backoff(left: float, **changes: Any) -> StageStatus:
    """Status of a stage whose first attempt failed and whose next attempt is due in ``left`` seconds."""
    failed = {"reason": Reason.RETRYING, "message": "exit code 129 is transient", "failures": 1}
    due = {"state": RunState.WAITING, "attempts": [launched(100, 129)], "not_before": NOW + left}
    return known(**{**failed, **due, **changes})


def seen(*pods: PodView, condition: str = "", events: tuple[EventView, ...] = (), **changes: Any) -> ObservedStage:
    """The first job of this run with its pods. The result of a failed job has been read."""
    changes.setdefault("result_read", condition == "Failed")
    own = {key: changes.pop(key) for key in ("suspended", "queue") if key in changes}
    conditions = (Condition(condition, "True"),) if condition else ()
    job = JobView("lab-data", "lab", "data", "curate", conditions=conditions, **own)
    return ObservedStage(
        ReleaseView("lab-data", "lab", job, pods, events), **{"uid": "u1", "attempt": 1, "owned": True, **changes}
    )


def ended(code: int | None, **changes: Any) -> ObservedStage:
    """A failed job whose pod has this exit code."""
    pod = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=code, terminated="Error"),))
    return seen(pod, condition="Failed", **changes)


def run(*parts: Part, suspend: bool = False, now: float = NOW, before: RunStatus | None = None) -> ObservedRun:
    """An observed run. A stage without a status was never reconciled."""
    spec = RunBody(stages=[stage for stage, _, _ in parts], suspend=suspend)
    stages = [status for _, status, _ in parts if status is not None]
    status = (before or RunStatus()).model_copy(update={"stages": stages})
    return ObservedRun("lab", spec, status, GENERATION, now, {stage.name: observed for stage, _, observed in parts})


def one(status: StageStatus | None, observed: ObservedStage, **changes: Any) -> ObservedRun:
    """An observed run with the single stage ``data``; changes apply to the stage, or to :func:`run`."""
    own = {key: changes.pop(key) for key in ("suspend", "now") if key in changes}
    return run((curate(**changes), status, observed), **own)


def next_observed(observed: ObservedRun, plan: Plan, **changes: Any) -> ObservedRun:
    """The observed run of the next reconciliation, with the planned status; changes apply to the observed run."""
    return replace(observed, status=plan.status, **changes)


def with_stage(observed: ObservedRun, **stages: ObservedStage) -> ObservedRun:
    """The observed run with some stages replaced."""
    return replace(observed, stages={**observed.stages, **stages})


def stage_of(plan: Plan, name: str = "data") -> StageStatus:
    """The planned status of a stage."""
    found = plan.status.stage_of(name)
    assert found is not None
    return found


@dataclass(frozen=True)
class Case:
    """An observed run, and the expected plan for ``stage``; ``says`` is part of the message."""

    observed: ObservedRun
    state: RunState
    reason: Reason | None
    does: tuple[Action, ...] = ()
    says: str = ""
    stage: str = "data"

    def check(self) -> Plan:
        """Decide, and compare the plan."""
        plan = decide(self.observed)
        status = stage_of(plan, self.stage)
        assert (status.state, status.reason) == (self.state, self.reason), status.message
        assert plan.actions == self.does
        assert self.says in status.message
        return plan
