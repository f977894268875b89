"""Builders of observed runs, the input of ``decide``, and of the expected plans."""

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
RUNNING_POD = replace(POD, phase="Running", conditions=(Condition("Ready", "True"),))
NO_JOB = ObservedStage(ReleaseView("lab-data", "lab"), result_read=True)
NO_JOB_UNREAD = replace(NO_JOB, result_read=False)
Part = tuple[StageSpec, StageStatus | None, ObservedStage]


def curate(name: str = "data", **changes: Any) -> StageSpec:
    """Return a stage without inputs, which can start immediately."""
    return StageSpec.model_validate(
        {"name": name, "kind": "curate", "retries": 2, "pending_timeout_seconds": 600.0, **changes}
    )


def launched_status(stage: str | StageSpec = "data", state: RunState = RunState.RUNNING, **changes: Any) -> StageStatus:
    """Return the status of a stage that was launched once, 100 s ago, and whose job was observed."""
    stage = stage if isinstance(stage, StageSpec) else curate(stage)
    fields = {"key": "k", "release": f"lab-{stage.name}", "attempts": [launched(100)], "job_uid": "u1", **changes}
    return StageStatus(name=stage.name, kind=str(stage.kind), state=state, **fields)


def unlaunched_status(stage: str | StageSpec = "data", **changes: Any) -> StageStatus:
    """Return the status of a stage that was resolved but not launched."""
    return launched_status(stage, **{"state": RunState.WAITING, "attempts": [], "job_uid": "", **changes})


def launched(age: float, code: int | None = None, ended: float = 0.0) -> AttemptStatus:
    """Return an attempt that started ``age`` seconds ago. With ``code``, it exited ``ended`` seconds ago; else it is running."""
    return AttemptStatus(started=NOW - age, ended=None if code is None else NOW - ended, exit_code=code)


def backoff(left: float, **changes: Any) -> StageStatus:
    """Return the status of a stage whose first attempt failed and whose next attempt is due in ``left`` seconds."""
    failed = {"reason": Reason.RETRYING, "message": "transient error (exit code 129)", "failures": 1}
    due = {"state": RunState.WAITING, "attempts": [launched(100, 129)], "not_before": NOW + left}
    return launched_status(**{**failed, **due, **changes})


def observed_job(
    *pods: PodView, condition: str = "", events: tuple[EventView, ...] = (), **changes: Any
) -> ObservedStage:
    """Return a stage whose first job exists, with these pods. The result of a failed job has been read.

    A suspended job without a queue was suspended by the operator, unless ``suspended_by_run`` is given.
    """
    changes.setdefault("result_read", condition == "Failed")
    arguments = {key: changes.pop(key) for key in ("suspended", "queue", "suspended_by_run") if key in changes}
    arguments.setdefault("suspended_by_run", "suspended" in arguments and "queue" not in arguments)
    conditions = (Condition(condition, "True"),) if condition else ()
    job = JobView("lab-data", "lab", "data", "curate", conditions=conditions, **arguments)
    return ObservedStage(
        ReleaseView("lab-data", "lab", job, pods, events), **{"uid": "u1", "attempt": 1, "owned": True, **changes}
    )


def failed_job(code: int | None, **changes: Any) -> ObservedStage:
    """Return a stage with a failed job whose pod has this exit code."""
    pod = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=code, terminated="Error"),))
    return observed_job(pod, condition="Failed", **changes)


def run(*parts: Part, suspend: bool = False, now: float = NOW, before: RunStatus | None = None) -> ObservedRun:
    """Return an observed run. A stage without a status was never reconciled."""
    spec = RunBody(stages=[stage for stage, _, _ in parts], suspend=suspend)
    stages = [status for _, status, _ in parts if status is not None]
    status = (before or RunStatus()).model_copy(update={"stages": stages})
    return ObservedRun("lab", spec, status, GENERATION, now, {stage.name: observed for stage, _, observed in parts})


def single_stage(status: StageStatus | None, observed: ObservedStage, **changes: Any) -> ObservedRun:
    """Return an observed run with the single stage ``data``. ``changes`` are fields of the stage or arguments of :func:`run`."""
    arguments = {key: changes.pop(key) for key in ("suspend", "now") if key in changes}
    return run((curate(**changes), status, observed), **arguments)


def next_observed(observed: ObservedRun, plan: Plan, **changes: Any) -> ObservedRun:
    """Return the observed run of the next reconciliation, which has the planned status; ``changes`` replace other fields."""
    return replace(observed, status=plan.status, **changes)


def with_stage(observed: ObservedRun, **stages: ObservedStage) -> ObservedRun:
    """Return the observed run with some stages replaced."""
    return replace(observed, stages={**observed.stages, **stages})


def stage_of(plan: Plan, name: str = "data") -> StageStatus:
    """Return the planned status of a stage."""
    found = plan.status.stage_of(name)
    assert found is not None
    return found


@dataclass(frozen=True)
class Case:
    """An observed run, and the expected state, reason, actions and part of the message of ``stage``."""

    observed: ObservedRun
    state: RunState
    reason: Reason | None
    actions: tuple[Action, ...] = ()
    message: str = ""
    stage: str = "data"

    def check(self) -> Plan:
        """Assert that the plan is as expected, and return it."""
        plan = decide(self.observed)
        status = stage_of(plan, self.stage)
        assert (status.state, status.reason) == (self.state, self.reason), status.message
        assert plan.actions == self.actions
        assert self.message in status.message
        return plan
