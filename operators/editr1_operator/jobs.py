"""Decide the next step of a stage that runs as a job and ends with a result.

Reward services, which run until no stage needs them, are planned in :mod:`editr1_operator.services`.
"""

from __future__ import annotations

from editr1.errors import ExitCode
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState
from editr1.launch.kubernetes.state import Phase, Trouble, pods_left, state_of
from editr1.runs.await_result import RESULT_SECONDS
from editr1.runs.next_step import NO_RESULT, before_start, overdue, service_of
from editr1.runs.spec import StageSpec
from editr1_operator.actions import DeleteJob, Launch, LoadResult, Resolve
from editr1_operator.failures import (
    deadline_passed,
    delete_stuck_pods,
    end_attempt,
    fail_deadline,
    last_failure,
    record_pods,
)
from editr1_operator.health import failure_message, has_ended, is_active, waiting_reason
from editr1_operator.plan import PlanBuilder, close_attempt
from editr1_operator.services import ensure_service
from editr1_operator.suspension import end_suspension, plan_suspended, suspend

_LOOKING_AGAIN = "the job succeeded, but its result is not in the artifact store; looking again"


def plan_stage(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Decide the next step of a stage whose inputs all exist."""
    seen = plan.observed_of(stage)
    if not plan.status_of(stage).key:
        return plan.act(Resolve(stage.name))
    if seen.result is not None and (not seen.has_job or has_ended(seen)):
        return _complete(plan, stage)
    return _plan_job(plan, stage) if seen.has_job else _plan_without_job(plan, stage)


def delete_job_of_ended_stage(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Delete the job of a failed stage if the job is still active, and of every stage that is over if a sidecar keeps its pods."""
    seen = plan.observed_of(stage)
    failed = plan.status_of(stage).state is RunState.FAILED
    kept = any(pod.kept_by for pod in seen.release.pods)
    if seen.has_job and seen.owned and (kept or (failed and is_active(seen))):
        return plan.act(DeleteJob(stage.name, seen.uid))
    return plan


def _complete(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    result, status = plan.observed_of(stage).result, plan.status_of(stage)
    assert result is not None
    existed = not status.attempts
    return plan.update(
        stage,
        state=RunState.DONE,
        reason=Reason.UP_TO_DATE if existed else Reason.DONE,
        message=before_start(True).reason if existed else "",
        outputs=result.outputs,
        metrics=result.metrics,
        attempts=close_attempt(status, plan.now, ExitCode.DONE, ""),
        ended=plan.now,
        pending_since=None,
        not_before=None,
        progress="",
    )


def _plan_without_job(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    plan = delete_stuck_pods(plan, stage)
    if _job_was_deleted(plan, stage):
        return _end_deleted_job(plan, stage)
    if plan.spec.suspend:
        return suspend(plan, stage)
    if deadline_passed(plan, stage):
        return fail_deadline(plan, stage)
    return _plan_next_attempt(plan, stage)


def _job_was_deleted(plan: PlanBuilder, stage: StageSpec) -> bool:
    """Return True if someone other than the operator deleted the job.

    Before the operator deletes a job, it records in the status that the attempt has ended or that the stage is suspended.
    """
    status = plan.status_of(stage)
    return bool(status.job_uid) and status.not_before is None and status.suspended_since is None


def _end_deleted_job(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    if not plan.observed_of(stage).result_read:
        return plan.act(LoadResult(stage.name))
    return end_attempt(plan, stage, ExitCode.KILLED, "the job was deleted by someone other than the operator")


def _plan_next_attempt(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Start the next attempt when the retry delay is over and the previous attempt has no pods left.

    No attempt is started if the previous attempt committed a result.
    """
    status, seen = plan.status_of(stage), plan.observed_of(stage)
    delayed = status.not_before is not None and plan.now < status.not_before
    if delayed or seen.terminating:
        return _wait_to_launch(plan, stage)
    if status.attempts and not seen.result_read:
        return plan.act(
            LoadResult(stage.name)
        )  # The previous attempt may have committed a result just before it ended.
    service = service_of(stage, plan.spec.stages)
    if service is None:
        return _launch(plan, stage)
    plan, ready = ensure_service(plan, service, stage)
    return _launch(plan, stage) if ready else plan


def _wait_to_launch(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Add to the plan the status of a stage whose next attempt cannot start yet.

    If the next attempt is a retry, the status message gives the failure of the previous attempt. Otherwise, for
    example after a suspension, the message states that the pods of the previous attempt are stopping.
    """
    status = plan.status_of(stage)
    if status.not_before is not None:
        return plan.update(stage, state=RunState.WAITING, reason=Reason.RETRYING, message=last_failure(status))
    message = "waiting for the pods of the previous attempt to stop"
    return plan.update(stage, state=RunState.STARTING, reason=Reason.PODS_STARTING, message=message)


def _launch(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Start the next attempt. If an attempt is planned but its job was never observed, start that attempt again."""
    status = plan.status_of(stage)
    planned = bool(status.attempts) and status.attempts[-1].ended is None
    attempts = status.attempts if planned else [*status.attempts, AttemptStatus(started=plan.now)]
    since = (status.pending_since if planned else None) or plan.now
    if overdue(since, plan.now, stage.pending_timeout_seconds) is not None:
        message = (
            f"{status.message}; no job was created within pending_timeout_seconds ({stage.pending_timeout_seconds:g} s)"
        )
        return plan.fail(stage, Reason.PENDING_TOO_LONG, message, code=ExitCode.CONFIG)
    refused = planned and status.reason in (Reason.REFUSED, Reason.SETTINGS)
    return plan.act(Launch(stage.name, len(attempts))).update(
        stage,
        state=RunState.STARTING,
        reason=status.reason if refused else Reason.PODS_STARTING,
        message=status.message if refused else f"attempt {len(attempts)}",
        attempts=attempts,
        not_before=None,
        pending_since=since,
        job_uid="",
        pods={},
        progress="",
        **end_suspension(status, plan.now),
    )


def _plan_job(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    seen = plan.observed_of(stage)
    if not seen.owned:
        message = f"a job named {seen.release.name} exists and does not belong to this run; delete it or rename the run"
        return plan.update(stage, state=RunState.WAITING, reason=Reason.REFUSED, message=message, pending_since=None)
    if _is_outdated(plan, stage):
        return _delete_outdated(plan, stage)
    if seen.uid != plan.status_of(stage).job_uid:
        plan = plan.update(stage, job_uid=seen.uid, pods={})
    state = state_of(seen.release)
    if state.phase is Phase.SUCCEEDED:
        return _plan_succeeded(plan, stage)
    if state.phase is Phase.FAILED:
        if not seen.result_read:
            return plan.act(LoadResult(stage.name))  # The result may have been committed just before the failure.
        code = ExitCode.KILLED if state.exit_code is None else state.exit_code
        return end_attempt(plan, stage, code, failure_message(state, seen))
    if plan.spec.suspend or state.phase is Phase.SUSPENDED:
        return plan_suspended(plan, stage)
    if deadline_passed(plan, stage):
        return fail_deadline(plan, stage)
    return _plan_active(plan, stage)


def _is_outdated(plan: PlanBuilder, stage: StageSpec) -> bool:
    """Return True if the job must no longer be used.

    This is the case if its attempt has ended, or if the operator has already requested its deletion to suspend the
    run.
    """
    status, seen = plan.status_of(stage), plan.observed_of(stage)
    attempt_over = seen.uid == status.job_uid and status.not_before is not None
    return attempt_over or seen.attempt < len(status.attempts) or seen.uid == status.removed_uid


def _delete_outdated(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    status = plan.status_of(stage)
    suspended = status.state is RunState.SUSPENDED and plan.spec.suspend
    return plan.act(DeleteJob(stage.name, plan.observed_of(stage).uid)).update(
        stage,
        state=RunState.SUSPENDED if suspended else RunState.WAITING,
        reason=status.reason,
        message=status.message,
    )


def _plan_succeeded(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Decide the next step of a stage whose job succeeded but whose result has not been found yet.

    The store is searched again for up to :data:`RESULT_SECONDS`. After this time, the stage fails.
    """
    seen = plan.observed_of(stage)
    if not seen.result_read:
        return plan.act(LoadResult(stage.name))
    if pods_left(seen.release.pods, plan.now):
        message = "the job succeeded; waiting for its remaining pods to stop"
        plan = plan.update(stage, state=RunState.RUNNING, reason=Reason.RUNNING, message=message)
        return delete_stuck_pods(plan, stage)
    status = plan.status_of(stage)
    # Before the job succeeded, the field contained the time since which the stage waited for its pods.
    since = (status.pending_since if status.message == _LOOKING_AGAIN else None) or plan.now
    if overdue(since, plan.now, RESULT_SECONDS) is None:
        waiting = {"state": RunState.RUNNING, "reason": Reason.RUNNING, "message": _LOOKING_AGAIN}
        return plan.update(stage, **waiting, pending_since=since)
    return plan.fail(stage, Reason.NO_RESULT, NO_RESULT, code=ExitCode.UNEXPECTED)


def _plan_active(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Decide the next step of a stage whose job is running or waiting for its pods."""
    status = plan.status_of(stage)
    plan = plan.update(
        stage,
        state=status.state,
        reason=status.reason,
        message=status.message,
        **end_suspension(status, plan.now),
    )
    plan = record_pods(delete_stuck_pods(plan, stage), stage)
    if plan.status_of(stage).state is RunState.FAILED:
        return plan
    state, status = state_of(plan.observed_of(stage).release), plan.status_of(stage)
    if state.phase is Phase.RUNNING and state.trouble in (None, Trouble.NOT_READY):
        return plan.update(
            stage,
            state=RunState.RUNNING,
            reason=waiting_reason(state) if state.trouble else Reason.RUNNING,
            message=state.reason,
            pending_since=None,
            progress=plan.observed_of(stage).progress or status.progress,
        )
    since = status.pending_since or plan.now
    if overdue(since, plan.now, stage.pending_timeout_seconds) is not None:
        plan = plan.act(DeleteJob(stage.name, plan.observed_of(stage).uid))
        message = f"{state.reason}; not all pods were running within pending_timeout_seconds ({stage.pending_timeout_seconds:g} s)"
        return plan.fail(stage, Reason.PENDING_TOO_LONG, message, code=ExitCode.TERMINATED)
    some_pods_run = state.phase is Phase.RUNNING
    return plan.update(
        stage,
        state=RunState.RUNNING if some_pods_run else RunState.STARTING,
        reason=waiting_reason(state),
        message=state.reason,
        pending_since=since,
    )
