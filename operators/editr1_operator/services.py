"""Decide when to create and release the reward services of a run.

A reward service is created before the first stage that uses it starts, and released when no stage uses it any longer.
"""

from __future__ import annotations

from typing import Any

from editr1.errors import ExitCode
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState
from editr1.launch.kubernetes.state import Phase, state_of
from editr1.runs.next_step import overdue, service_of
from editr1.runs.spec import StageSpec
from editr1_operator.actions import DeleteJob, EnsureService, ReleaseService, Resolve
from editr1_operator.health import has_succeeded, waiting_reason
from editr1_operator.plan import PlanBuilder, close_attempt


def ensure_service(plan: PlanBuilder, service: StageSpec, stage: StageSpec) -> tuple[PlanBuilder, bool]:
    """Decide the next step towards a ready reward service for ``stage``.

    Returns:
        The plan, and True if the service is ready. While the service is not ready, the stage waits. If the service
        has failed, the stage fails as well.
    """
    plan = plan.use_service(service)
    status, seen = plan.status_of(service), plan.observed_of(service)
    if status.state is RunState.FAILED:
        reason = status.reason or Reason.STAGE_FAILED
        return plan.fail(stage, reason, f"{service.name}: {status.message}", code=ExitCode.UNEXPECTED), False
    if not status.key:
        return _wait_for(plan.act(Resolve(service.name)), service, stage), False
    if not (seen.has_job and seen.owned):
        return _create(plan, service, stage), False
    state = state_of(seen.release)
    if state.phase is not Phase.READY:
        return _wait_until_ready(plan, service, stage), False
    plan = plan.update(
        service,
        state=RunState.RUNNING,
        reason=Reason.RUNNING,
        message=state.reason,
        pending_since=None,
        attempts=status.attempts or [AttemptStatus(started=status.pending_since or plan.now)],
        job_uid=seen.uid,
    )
    return plan, True


def keep_service(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Keep a reward service for as long as a started stage uses it. If the service was deleted, create it again.

    The pods of the stage wait while the service is unavailable, so the status of the stage does not change. If the
    service fails, the stage fails as well.
    """
    service, status = service_of(stage, plan.spec.stages), plan.status_of(stage)
    if service is None or service.name in plan.services or plan.spec.suspend or status.over or not status.attempts:
        return plan
    if has_succeeded(plan.observed_of(stage)):
        return plan  # The result of the stage is about to be read.
    plan, _ = ensure_service(plan, service, stage)
    if plan.status_of(stage).state is not RunState.FAILED:
        return plan.put(status)
    seen = plan.observed_of(stage)
    return plan.act(DeleteJob(stage.name, seen.uid)) if seen.has_job and seen.owned else plan


def release_service(plan: PlanBuilder, service: StageSpec, *, needed_later: bool) -> PlanBuilder:
    """Release a reward service that no stage needs now.

    ``needed_later`` states whether a stage will need it again.
    """
    status, seen = plan.status_of(service), plan.observed_of(service)
    in_use = {plan.stages[name].release for name in plan.services if name != service.name}
    if seen.owned and seen.has_job and status.release not in in_use:
        plan = plan.act(ReleaseService(service.name))
    if status.state is RunState.FAILED:
        return plan
    if needed_later:
        suspended = plan.spec.suspend
        return plan.update(
            service,
            state=RunState.SUSPENDED if suspended else RunState.WAITING,
            reason=Reason.SUSPENDED if suspended else Reason.INPUTS_MISSING,
            message="starts together with the next stage that uses it",
            pending_since=None,
        )
    if status.state is RunState.DONE:
        return plan
    attempts = close_attempt(status, plan.now, 0, "")
    return plan.update(
        service, state=RunState.DONE, reason=Reason.DONE, attempts=attempts, ended=plan.now, pending_since=None
    )


def _create(plan: PlanBuilder, service: StageSpec, stage: StageSpec) -> PlanBuilder:
    """Add to the plan an action that creates the reward service or, if it exists, adds the run to its owners.

    If the API server rejected the objects of the service earlier, the status message with the reason is kept.
    """
    status = plan.status_of(service)
    since = status.pending_since or plan.now
    if overdue(since, plan.now, service.pending_timeout_seconds) is not None:
        return _fail_pending(plan, service, stage, status.message or "the objects of the service were not created")
    refused = status.reason in (Reason.REFUSED, Reason.SETTINGS)
    message = status.message if refused else ""
    plan = plan.act(EnsureService(service.name)).update(
        service,
        state=RunState.STARTING,
        reason=status.reason if refused else Reason.PODS_STARTING,
        message=message,
        pending_since=since,
    )
    return _wait_for(plan, service, stage, message)


def _wait_until_ready(plan: PlanBuilder, service: StageSpec, stage: StageSpec) -> PlanBuilder:
    status, state = plan.status_of(service), state_of(plan.observed_of(service).release)
    since = status.pending_since or plan.now
    if overdue(since, plan.now, service.pending_timeout_seconds) is not None:
        return _fail_pending(plan, service, stage, state.reason)
    starting: dict[str, Any] = {"state": RunState.STARTING, "reason": waiting_reason(state), "message": state.reason}
    return _wait_for(plan.update(service, **starting, pending_since=since), service, stage, state.reason)


def _wait_for(plan: PlanBuilder, service: StageSpec, stage: StageSpec, cause: str = "") -> PlanBuilder:
    message = f"waiting for {service.name}{': ' + cause if cause else ''}"
    return plan.update(stage, state=RunState.STARTING, reason=Reason.SERVICE_STARTING, message=message)


def _fail_pending(plan: PlanBuilder, service: StageSpec, stage: StageSpec, cause: str) -> PlanBuilder:
    """Fail a reward service that did not become ready in time, and the stage that waits for it.

    :func:`release_service` then deletes the objects of the service.
    """
    message = (
        f"{cause}; the service was not ready within pending_timeout_seconds ({service.pending_timeout_seconds:g} s)"
    )
    plan = plan.fail(service, Reason.PENDING_TOO_LONG, message, code=ExitCode.TERMINATED)
    return plan.fail(stage, Reason.PENDING_TOO_LONG, f"{service.name}: {message}", code=ExitCode.TERMINATED)
