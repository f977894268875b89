"""Decide the next step of a stage that is suspended, either by the run's field ``suspend`` or by a Kueue queue."""

from __future__ import annotations

from typing import Any

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.launch.kubernetes.state import state_of
from editr1.runs.next_step import service_of
from editr1.runs.spec import StageSpec
from editr1_operator.actions import DeleteJob, SetSuspended
from editr1_operator.failures import delete_stuck_pods
from editr1_operator.plan import PlanBuilder
from editr1_operator.services import ensure_service


def plan_suspended(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Decide the next step of a stage whose run or whose job is suspended."""
    seen = plan.observed_of(stage)
    job = seen.release.job
    assert job is not None
    if plan.spec.suspend and job.queue and not job.suspended:
        # Only the queue may suspend a job that it admitted, so the job is deleted. When the run is resumed, a new job
        # is queued.
        plan = suspend(plan, stage).act(DeleteJob(stage.name, seen.uid))
        return plan.put(plan.status_of(stage).model_copy(update={"removed_uid": seen.uid, "job_uid": ""}))
    if plan.spec.suspend:
        plan = suspend(plan, stage)
        return plan if job.suspended else plan.act(SetSuspended(stage.name, True))
    if job.queue:
        return _wait_for_queue(plan, stage)
    if not job.suspended_by_run:
        return _wait_for_release(plan, stage)
    if any(pod.terminating for pod in seen.release.pods):
        # training-operator counts a terminating pod as part of the resumed job, so the end of the pod would fail the
        # job.
        plan = delete_stuck_pods(plan, stage)
        message = "resumes as soon as its old pods have stopped"
        return plan.update(stage, state=RunState.SUSPENDED, reason=Reason.SUSPENDED, message=message)
    return _resume(plan, stage)


def suspend(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Return a copy of the plan in which the status of the stage is "suspended"."""
    status = plan.status_of(stage)
    return plan.update(
        stage,
        state=RunState.SUSPENDED,
        reason=Reason.SUSPENDED,
        message="continues from its last checkpoint when the run is resumed" if status.attempts else "not started yet",
        suspended_since=status.suspended_since or plan.now,
        pending_since=None,
        pods={},
    )


def end_suspension(status: StageStatus, now: float) -> dict[str, Any]:
    """Return the status fields of a stage that change when a suspension ends.

    The duration of the suspension is added to the total time for which the stage was suspended.
    """
    duration = now - status.suspended_since if status.suspended_since is not None and status.attempts else 0.0
    return {"suspended_since": None, "suspended_seconds": status.suspended_seconds + duration}


def _wait_for_queue(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    return _wait(plan, stage, Reason.QUEUED, state_of(plan.observed_of(stage).release).reason)


def _wait_for_release(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Wait until whoever suspended the job resumes it, such as an administrator or a queue controller that manages all jobs."""
    name = plan.observed_of(stage).release.name
    message = (
        f"job {name} is suspended by something other than this run; if a queue controller manages it, set the value queueName; "
        f"otherwise resume it with kubectl patch pytorchjob {name} --type=merge -p "
        '\'{"spec":{"runPolicy":{"suspend":false}}}\''
    )
    return _wait(plan, stage, Reason.HELD, message)


def _wait(plan: PlanBuilder, stage: StageSpec, reason: Reason, message: str) -> PlanBuilder:
    return plan.update(
        stage,
        state=RunState.WAITING,
        reason=reason,
        message=message,
        pending_since=None,
        suspended_since=plan.status_of(stage).suspended_since or plan.now,
        pods={},
    )


def _resume(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    service = service_of(stage, plan.spec.stages)
    if service is not None:
        plan, ready = ensure_service(plan, service, stage)
        if not ready:
            return plan
    return plan.act(SetSuspended(stage.name, False)).update(
        stage,
        state=RunState.STARTING,
        reason=Reason.PODS_STARTING,
        pending_since=plan.now,
        pods={},
        **end_suspension(plan.status_of(stage), plan.now),
    )
