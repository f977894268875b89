"""Decide the next step of a run, from its observed state and the current time. All functions are pure.

:func:`decide` is called after every change. It returns the new status of the run, and the actions to take. The status
is written before the first action is taken, and all actions are idempotent. An operator that is killed between two
steps therefore loses no work: after a restart, it observes the same state and makes the same decision.

=======================================  =================================================================
Observed state of a stage                Decision
=======================================  =================================================================
an input does not exist yet              wait
result exists in the artifact store      done; nothing is started
no job, no attempt planned               start the stage's reward service, if it has one; then attempt 1
no job, attempt planned, job never seen  create the job of that attempt again
job was observed earlier, but is gone    the attempt failed: record exit code 137
job of an earlier attempt                delete the job
job pending                              report why; after ``pending_timeout_seconds``, fail and delete the job
pod replaced (same name, new UID)        its node was lost: count a failure, and let the job continue
job failed with a retryable exit code    delete the job; after a backoff, start the next attempt
permanent exit code, or no retries left  fail the stage
job succeeded                            done if a result was committed, otherwise fail the stage
``deadline_seconds`` passed              fail the stage and delete the job
``suspend`` is set                       suspend the job and release its service, until the run is resumed
=======================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus
from editr1.runs.kinds import KINDS
from editr1.runs.next_step import dependencies, services_wanted, startable
from editr1.runs.spec import StageSpec
from editr1_operator.actions import Action
from editr1_operator.conditions import summarize
from editr1_operator.jobs import delete_job_of_ended_stage, plan_stage
from editr1_operator.observed import ObservedRun
from editr1_operator.plan import PlanBuilder
from editr1_operator.services import keep_service, release_service


@dataclass(frozen=True)
class Plan:
    """The new status of a run, and the actions to take after it has been written."""

    status: RunStatus
    actions: tuple[Action, ...]


def decide(observed: ObservedRun) -> Plan:
    """Return the next step of a run."""
    spec, plan = observed.spec, PlanBuilder.start(observed)
    done = frozenset(name for name, stage in plan.stages.items() if stage.state is RunState.DONE)
    ready = {stage.name for stage in startable(spec.stages, done)}
    failed = sorted(name for name, stage in plan.stages.items() if stage.state is RunState.FAILED)
    for stage in spec.stages:
        if KINDS[stage.kind].service:
            continue
        known = plan.status_of(stage)
        if known.over:
            plan = delete_job_of_ended_stage(plan, stage)
        elif failed and not known.attempts:
            message = f"not started because {', '.join(failed)} failed"
            plan = plan.update(stage, state=RunState.WAITING, reason=Reason.STAGE_FAILED, message=message)
        elif stage.name in ready:
            plan = keep_service(plan_stage(plan, stage), stage)
        else:
            plan = _wait_for_inputs(plan, stage, done)
    plan = _release_services(plan)
    status = observed.status.model_copy(update={"stages": [plan.status_of(stage) for stage in spec.stages]})
    return Plan(summarize(status, spec, observed.generation, observed.now), plan.actions)


def _wait_for_inputs(plan: PlanBuilder, stage: StageSpec, done: Set[str]) -> PlanBuilder:
    missing = sorted(dependencies(stage, plan.spec.stages) - done)
    message = f"waiting for {', '.join(missing)}"
    return plan.update(stage, state=RunState.WAITING, reason=Reason.INPUTS_MISSING, message=message)


def _release_services(plan: PlanBuilder) -> PlanBuilder:
    """Release every reward service that has failed or that no stage needs now."""
    stages = plan.spec.stages
    finished = {name for name, status in plan.stages.items() if status.over}
    needed_later = services_wanted(stages, finished)
    for stage in stages:
        failed = plan.status_of(stage).state is RunState.FAILED
        if KINDS[stage.kind].service and (failed or stage.name not in plan.services):
            plan = release_service(plan, stage, needed_later=stage.name in needed_later)
    return plan
