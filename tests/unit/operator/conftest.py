"""A run's facts, built by hand: what stands in the cluster, what the status says, the time."""

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
    """A stage that reads nothing: it can start at once."""
    return StageSpec.model_validate(
        {"name": name, "kind": "curate", "retries": 2, "pending_timeout_seconds": 600.0, **changes}
    )


def known(stage: str | StageSpec = "data", state: RunState = RunState.RUNNING, **changes: Any) -> StageStatus:
    """A stage that was resolved and asked for once, 100 s ago, and whose job was seen."""
    stage = stage if isinstance(stage, StageSpec) else curate(stage)
    fields = {"key": "k", "release": f"lab-{stage.name}", "attempts": [asked(100)], "job_uid": "u1", **changes}
    return StageStatus(name=stage.name, kind=str(stage.kind), state=state, **fields)


def fresh(stage: str | StageSpec = "data", **changes: Any) -> StageStatus:
    """A stage that was resolved and not asked for."""
    return known(stage, **{"state": RunState.WAITING, "attempts": [], "job_uid": "", **changes})


def asked(age: float, code: int | None = None, ended: float = 0.0) -> AttemptStatus:
    """An attempt asked for ``age`` seconds ago that runs, or that ended with ``code`` ``ended`` seconds ago."""
    return AttemptStatus(started=NOW - age, ended=None if code is None else NOW - ended, exit_code=code)


def backoff(left: float, **changes: Any) -> StageStatus:
    """A stage whose first attempt failed; the next one is due in ``left`` seconds."""
    told = {"reason": Reason.RETRYING, "message": "exit code 129 is worth a retry", "failures": 1}
    due = {"state": RunState.WAITING, "attempts": [asked(100, 129)], "not_before": NOW + left}
    return known(**{**told, **due, **changes})


def seen(*pods: PodView, condition: str = "", events: tuple[EventView, ...] = (), **changes: Any) -> ObservedStage:
    """A job of this run, attempt 1, with its pods; one that failed was asked for its result."""
    changes.setdefault("result_read", condition == "Failed")
    own = {key: changes.pop(key) for key in ("suspended", "queue") if key in changes}
    conditions = (Condition(condition, "True"),) if condition else ()
    job = JobView("lab-data", "lab", "data", "curate", conditions=conditions, **own)
    return ObservedStage(
        ReleaseView("lab-data", "lab", job, pods, events), **{"uid": "u1", "attempt": 1, "owned": True, **changes}
    )


def ended(code: int | None, **changes: Any) -> ObservedStage:
    """A job that failed, its pod with that exit code."""
    pod = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=code, terminated="Error"),))
    return seen(pod, condition="Failed", **changes)


def run(*parts: Part, suspend: bool = False, now: float = NOW, before: RunStatus | None = None) -> ObservedRun:
    """All that a decision is made of; a stage without a status was never looked at."""
    spec = RunBody(stages=[stage for stage, _, _ in parts], suspend=suspend)
    stages = [status for _, status, _ in parts if status is not None]
    status = (before or RunStatus()).model_copy(update={"stages": stages})
    return ObservedRun("lab", spec, status, GENERATION, now, {stage.name: facts for stage, _, facts in parts})


def one(status: StageStatus | None, facts: ObservedStage, **changes: Any) -> ObservedRun:
    """A run of the one stage ``data``; changes go to the stage, or to :func:`run`."""
    own = {key: changes.pop(key) for key in ("suspend", "now") if key in changes}
    return run((curate(**changes), status, facts), **own)


def next_facts(facts: ObservedRun, plan: Plan, **changes: Any) -> ObservedRun:
    """The facts of the next look, with the status that was written; changes go to the run's facts."""
    return replace(facts, status=plan.status, **changes)


def with_stage(facts: ObservedRun, **stages: ObservedStage) -> ObservedRun:
    """The facts with other ones of some stages."""
    return replace(facts, stages={**facts.stages, **stages})


def stage_of(plan: Plan, name: str = "data") -> StageStatus:
    """The stage's new status."""
    found = plan.status.stage_of(name)
    assert found is not None
    return found


@dataclass(frozen=True)
class Case:
    """What is seen, and what must follow for ``stage``; ``says`` is part of the message."""

    facts: ObservedRun
    state: RunState
    reason: Reason | None
    does: tuple[Action, ...] = ()
    says: str = ""
    stage: str = "data"

    def check(self) -> Plan:
        """Decide and compare."""
        plan = decide(self.facts)
        status = stage_of(plan, self.stage)
        assert (status.state, status.reason) == (self.state, self.reason), status.message
        assert plan.actions == self.does
        assert self.says in status.message
        return plan
