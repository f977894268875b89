"""Decide what to do after a failure of an attempt: a nonzero exit code, a missed deadline, a lost node or a stuck pod."""

from __future__ import annotations

from editr1.errors import ExitCode, is_retryable
from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.runs.next_step import NextStep, after_end, overdue
from editr1.runs.spec import StageSpec
from editr1_operator.actions import DeleteJob, ForceDeletePod
from editr1_operator.health import stuck_pods
from editr1_operator.plan import PlanBuilder, close_attempt


def end_attempt(plan: PlanBuilder, stage: StageSpec, code: int, cause: str) -> PlanBuilder:
    """Record the end of an attempt that committed no result, and schedule the next attempt or fail the stage.

    Args:
        plan: The plan so far.
        stage: The stage whose attempt ended.
        code: Exit code of the attempt.
        cause: Reason why the attempt ended, for the status message.
    """
    status = plan.status_of(stage)
    failures = status.failures + 1
    decision = after_end(code, False, failures, stage.retries)
    message = f"{decision.reason}{': ' + cause if cause else ''}"
    if decision.action is not NextStep.RETRY:
        reason = Reason.RETRIES_SPENT if is_retryable(code) else Reason.EXIT_PERMANENT
        return plan.fail(stage, reason, message, code=code)
    return plan.update(
        stage,
        state=RunState.WAITING,
        reason=Reason.RETRYING,
        message=message,
        attempts=close_attempt(status, plan.now, code, cause),
        failures=failures,
        not_before=plan.now + decision.delay,
        pending_since=None,
        progress="",
    )


def last_failure(status: StageStatus) -> str:
    """Return the reason why the last completed attempt failed. The result is empty if no attempt is complete."""
    last = next((item for item in reversed(status.attempts) if item.ended is not None), None)
    if last is None or last.exit_code is None:
        return ""
    reason = after_end(last.exit_code, False, 0, 0).reason
    return f"{reason}{': ' + last.reason if last.reason else ''}"


def deadline_passed(plan: PlanBuilder, stage: StageSpec) -> bool:
    """Return True if the stage has run longer than its ``deadline_seconds``. The time for which it was suspended is not counted."""
    status = plan.status_of(stage)
    if status.suspended_since is not None or not status.attempts:
        return False
    return overdue(status.attempts[0].started + status.suspended_seconds, plan.now, stage.deadline_seconds) is not None


def fail_deadline(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Fail a stage whose deadline has passed, and delete its job."""
    seen = plan.observed_of(stage)
    if seen.has_job:
        plan = plan.act(DeleteJob(stage.name, seen.uid))
    message = f"the stage did not finish within deadline_seconds ({stage.deadline_seconds:g} s)"
    return plan.fail(stage, Reason.DEADLINE, message, code=ExitCode.TERMINATED)


def record_pods(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Record the UIDs of the stage's pods in its status, and count lost nodes as failures.

    If a pod was replaced with a pod with the same name and a different UID, the node of the old pod was lost. The
    stage then fails if it has no retries left. Otherwise its job continues with the new pod.
    """
    status, seen = plan.status_of(stage), plan.observed_of(stage)
    pods = {pod.name: pod.uid for pod in seen.release.pods if not pod.terminating}
    lost = sorted(name for name, uid in pods.items() if status.pods.get(name, uid) != uid)
    failures = status.failures + bool(lost)  # Pods that are lost together count as one lost node.
    plan = plan.update(stage, pods={**status.pods, **pods}, failures=failures, state=status.state, reason=status.reason)
    if not lost or failures <= stage.retries:
        return plan
    message = f"pod {', '.join(lost)} was lost with its node, and no retries are left (retries: {stage.retries})"
    plan = plan.act(DeleteJob(stage.name, seen.uid))
    return plan.fail(stage, Reason.RETRIES_SPENT, message, code=ExitCode.KILLED)


def delete_stuck_pods(plan: PlanBuilder, stage: StageSpec) -> PlanBuilder:
    """Force the deletion of the stage's pods on lost nodes. Until they are deleted, no new pods can replace them."""
    stuck = stuck_pods(plan.observed_of(stage), plan.now)
    return plan.act(*(ForceDeletePod(stage.name, pod.name, pod.uid) for pod in stuck))
