"""Decisions by the observed state of a stage: each row of the table in ``decide``, and dependencies between stages."""

from dataclasses import replace

import pytest

from editr1.errors import ExitCode, is_retryable
from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, EventView, PodView
from editr1_operator.actions import DeleteJob, ForceDeletePod, Launch, LoadResult, Resolve
from editr1_operator.decide import decide
from editr1_operator.jobs import _LOOKING_AGAIN
from editr1_operator.observed import ObservedStage
from tests.unit.operator.conftest import (
    NO_JOB,
    NO_JOB_UNREAD,
    NOW,
    POD,
    RESULT,
    RUNNING_POD,
    Case,
    backoff,
    curate,
    failed_job,
    launched,
    launched_status,
    next_observed,
    observed_job,
    run,
    single_stage,
    stage_of,
    unlaunched_status,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
REPLACEMENT_POD = replace(RUNNING_POD, uid="p2")
PARENT = launched_status("data", D, reason=Reason.DONE)
CHILD = curate("more", kind="sft", inputs={"rows": "stage:data/rows", "model": "builtin:shapes-verifier"})
STARTING_STATUS = launched_status(state=S, pending_since=NOW - 10)


def kept(code: int) -> PodView:
    """Return a pod whose stage exited with ``code``, and which a proxy keeps running."""
    containers = (ContainerView("pytorch", exit_code=code), ContainerView("proxy", running=True))
    return replace(RUNNING_POD, containers=containers)


def pulling(pod: PodView = POD) -> PodView:
    return replace(pod, containers=(replace(pod.containers[0], waiting="ImagePullBackOff"),))


def event(message: str, reason: str = "FailedCreatePod", of: str = "lab-data") -> tuple[EventView]:
    return (EventView(of, reason, message, warning=True),)


NO_NODE = replace(POD, conditions=(Condition("PodScheduled", "False", "", "1 Insufficient nvidia.com/gpu."),))
PENDING: dict[str, tuple[ObservedStage, Reason, str]] = {
    "no node": (observed_job(NO_NODE), Reason.NO_NODE, "not enough nvidia.com/gpu is free"),
    "no image": (observed_job(pulling()), Reason.NO_IMAGE, "cannot pull its image editr1/curate:9"),
    "no quota": (observed_job(events=event("exceeded quota: team")), Reason.NO_QUOTA, "quota is exhausted: team"),
    "pods refused": (observed_job(events=event("violates PodSecurity")), Reason.PODS_REFUSED, "Pod Security rejects"),
    "no volume": (
        observed_job(POD, events=event("no configmap", "FailedMount", POD.name)),
        Reason.CANNOT_START,
        "waits for a volume: no configmap",
    ),
    "no pod yet": (observed_job(), Reason.PODS_STARTING, "waiting for its pods to start"),
}

CASES = {
    "a new stage is resolved": Case(single_stage(None, NO_JOB), W, None, (Resolve("data"),)),
    "a stage whose input does not exist waits": Case(
        run((curate(), launched_status(), observed_job(RUNNING_POD)), (CHILD, None, NO_JOB)),
        *(W, Reason.INPUTS_MISSING, (), "waiting for data", "more"),
    ),
    "a stage is resolved as soon as its input exists": Case(
        run((curate(), PARENT, NO_JOB), (CHILD, None, NO_JOB)), W, None, (Resolve("more"),), "", "more"
    ),
    "an existing result is used and nothing is started": Case(
        single_stage(unlaunched_status(), replace(NO_JOB, result=RESULT, result_read=True)),
        D,
        Reason.UP_TO_DATE,
        (),
        "up to date",
    ),
    "a stage without a result is started": Case(
        single_stage(unlaunched_status(), replace(NO_JOB, result_read=True)),
        S,
        Reason.PODS_STARTING,
        (Launch("data", 1),),
        "attempt 1",
    ),
    "an attempt whose job was never observed is launched again": Case(
        single_stage(launched_status(state=S, job_uid="", pending_since=NOW - 100), NO_JOB),
        *(S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"),
    ),
    "a rejected launch keeps its message": Case(
        single_stage(launched_status(state=S, job_uid="", reason=Reason.REFUSED, message="no such kind"), NO_JOB),
        *(S, Reason.REFUSED, (Launch("data", 1),), "no such kind"),
    ),
    "a launch that is rejected for too long fails the stage": Case(
        single_stage(launched_status(state=S, job_uid="", message="no such kind", pending_since=NOW - 601), NO_JOB),
        *(F, Reason.PENDING_TOO_LONG, (), "no such kind; no job was created within pending_timeout_seconds (600 s)"),
    ),
    "the result of a deleted job is read, since it may have been committed": Case(
        single_stage(launched_status(), NO_JOB_UNREAD), R, None, (LoadResult("data"),)
    ),
    "a job that is being deleted after it committed its result is done": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD, terminating=True, result=RESULT, result_read=True)),
        D,
        Reason.DONE,
    ),
    "a deleted job with a result is done": Case(
        single_stage(launched_status(), replace(NO_JOB, result=RESULT, result_read=True)), D, Reason.DONE
    ),
    "the result of a failed job is read, since it may have been committed": Case(
        single_stage(launched_status(), failed_job(137, result_read=False)), R, None, (LoadResult("data"),)
    ),
    "a job that failed after it committed its result is done": Case(
        single_stage(launched_status(), failed_job(137, result=RESULT)), D, Reason.DONE
    ),
    "a deleted job without a result counts as killed": Case(
        single_stage(launched_status(), replace(NO_JOB, result_read=True)),
        *(
            W,
            Reason.RETRYING,
            (),
            "transient error (exit code 137): the job was deleted by someone other than the operator",
        ),
    ),
    "a job that is being deleted counts as killed before it is gone": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD, terminating=True, result_read=True)),
        W,
        Reason.RETRYING,
        (),
        "deleted by someone other than the operator",
    ),
    "a job deleted after the last retry fails the stage": Case(
        single_stage(launched_status(failures=2), replace(NO_JOB, result_read=True)),
        F,
        Reason.RETRIES_SPENT,
        (),
        "no retries are left (retries: 2)",
    ),
    "a stage that failed in a pod that a sidecar keeps has failed": Case(
        single_stage(launched_status(), observed_job(kept(2), result_read=True)),
        *(F, Reason.EXIT_PERMANENT, (), "is kept by a sidecar, its container proxy"),
    ),
    "the result of a stage counts although a sidecar keeps its pod": Case(
        single_stage(launched_status(), observed_job(kept(0), result=RESULT)), D, Reason.DONE
    ),
    "the job of a done stage is deleted if a sidecar keeps its pod": Case(
        single_stage(
            launched_status(state=D, reason=Reason.DONE, attempts=[launched(100, 0)]),
            observed_job(kept(0), result=RESULT),
        ),
        *(D, Reason.DONE, (DeleteJob("data", "u1"),)),
    ),
    "the job of an earlier attempt is deleted": Case(
        single_stage(
            launched_status(attempts=[launched(100, 129), launched(5)], job_uid=""), observed_job(RUNNING_POD)
        ),
        *(W, None, (DeleteJob("data", "u1"),)),
    ),
    "a failed job is deleted before the next attempt": Case(
        single_stage(backoff(1), failed_job(129)), W, Reason.RETRYING, (DeleteJob("data", "u1"),), "exit code 129"
    ),
    "the next attempt waits for the backoff": Case(
        single_stage(backoff(1), NO_JOB), W, Reason.RETRYING, (), "exit code 129"
    ),
    "the next attempt starts after the backoff": Case(
        single_stage(backoff(-0.1), NO_JOB), S, Reason.PODS_STARTING, (Launch("data", 2),), "attempt 2"
    ),
    "the next attempt waits until the previous job is gone": Case(
        single_stage(backoff(-1), observed_job(terminating=True)), W, Reason.RETRYING, (), "exit code 129"
    ),
    "a running job makes the stage running": Case(
        single_stage(STARTING_STATUS, observed_job(RUNNING_POD)), R, Reason.RUNNING
    ),
    "a running job that is not ready reports why": Case(
        single_stage(
            launched_status(),
            observed_job(replace(RUNNING_POD, conditions=()), events=event("503", "Unhealthy", POD.name)),
        ),
        *(R, Reason.PODS_STARTING, (), "is not ready: 503"),
    ),
    "a job that does not start in time is deleted": Case(
        single_stage(launched_status(state=S, pending_since=NOW - 601), observed_job(NO_NODE)),
        *(F, Reason.PENDING_TOO_LONG, (DeleteJob("data", "u1"),), "cannot be scheduled"),
    ),
    "a pending job is kept up to the limit": Case(
        single_stage(launched_status(state=S, pending_since=NOW - 600), observed_job(NO_NODE)), S, Reason.NO_NODE
    ),
    "a pod with a new UID is a failure and the job continues": Case(
        single_stage(launched_status(pods={POD.name: "p1"}), observed_job(REPLACEMENT_POD)), R, Reason.RUNNING
    ),
    "a job continues after a lost pod while retries are left": Case(
        single_stage(launched_status(pods={POD.name: "p1"}, failures=1), observed_job(REPLACEMENT_POD)),
        R,
        Reason.RUNNING,
    ),
    "a lost pod fails the stage when no retries are left": Case(
        single_stage(launched_status(pods={POD.name: "p1"}, failures=2), observed_job(REPLACEMENT_POD)),
        *(
            F,
            Reason.RETRIES_SPENT,
            (DeleteJob("data", "u1"),),
            f"pod {POD.name} was lost with its node, and no retries are left (retries: 2)",
        ),
    ),
    "the result of a job that succeeded is read": Case(
        single_stage(launched_status(), observed_job(condition="Succeeded")), R, None, (LoadResult("data"),)
    ),
    "a job that succeeded with a result is done": Case(
        single_stage(launched_status(), observed_job(condition="Succeeded", result=RESULT, result_read=True)),
        D,
        Reason.DONE,
    ),
    "the result of a job that succeeded is looked for again": Case(
        single_stage(
            launched_status(state=S, pending_since=NOW - 500), observed_job(condition="Succeeded", result_read=True)
        ),
        *(R, Reason.RUNNING, (), "looking again"),
    ),
    "a job that succeeded without a result fails": Case(
        single_stage(
            launched_status(pending_since=NOW - 31, message=_LOOKING_AGAIN),
            observed_job(condition="Succeeded", result_read=True),
        ),
        F,
        Reason.NO_RESULT,
        (),
        "committed no result",
    ),
    "a job that succeeded waits for its remaining pods": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD, condition="Succeeded", result_read=True)),
        R,
        Reason.RUNNING,
        (),
        "waiting for its remaining pods to stop",
    ),
    "a job past its deadline is deleted": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD), deadline_seconds=99),
        *(F, Reason.DEADLINE, (DeleteJob("data", "u1"),), "the stage did not finish within deadline_seconds (99 s)"),
    ),
    "a job before its deadline continues": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD), deadline_seconds=101), R, Reason.RUNNING
    ),
    "a pending job past its deadline is deleted": Case(
        single_stage(launched_status(state=S, pending_since=NOW - 10), observed_job(NO_NODE), deadline_seconds=99),
        *(F, Reason.DEADLINE, (DeleteJob("data", "u1"),)),
    ),
    "suspended time does not count towards the deadline": Case(
        single_stage(launched_status(suspended_seconds=50.0), observed_job(RUNNING_POD), deadline_seconds=51),
        R,
        Reason.RUNNING,
    ),
    "time outside suspensions counts towards the deadline": Case(
        single_stage(launched_status(suspended_seconds=50.0), observed_job(RUNNING_POD), deadline_seconds=49),
        F,
        Reason.DEADLINE,
        (DeleteJob("data", "u1"),),
    ),
    "no attempt starts after the deadline": Case(
        single_stage(backoff(-1), NO_JOB, deadline_seconds=99),
        F,
        Reason.DEADLINE,
        (),
        "the stage did not finish within deadline_seconds (99 s)",
    ),
    "a terminating job is not deleted again after the deadline": Case(
        single_stage(backoff(-1), observed_job(terminating=True), deadline_seconds=99), F, Reason.DEADLINE
    ),
    "the deadline covers all attempts together": Case(
        single_stage(
            launched_status(attempts=[launched(100, 129), launched(5)]),
            observed_job(RUNNING_POD, attempt=2),
            deadline_seconds=99,
        ),
        *(F, Reason.DEADLINE, (DeleteJob("data", "u1"),)),
    ),
    "a job of another owner is not changed": Case(
        single_stage(unlaunched_status(), observed_job(RUNNING_POD, owned=False)),
        W,
        Reason.REFUSED,
        (),
        "a job named lab-data exists and does not belong to this run",
    ),
    "a failed job of another owner is not changed": Case(
        single_stage(launched_status(attempts=[launched(9, 129), launched(5)], job_uid=""), failed_job(2, owned=False)),
        W,
        Reason.REFUSED,
    ),
    "a failed stage deletes its running job": Case(
        single_stage(
            launched_status(state=F, reason=Reason.DEADLINE, attempts=[launched(100, 143)]), observed_job(RUNNING_POD)
        ),
        F,
        Reason.DEADLINE,
        (DeleteJob("data", "u1"),),
    ),
    "a failed stage deletes its running job only once": Case(
        single_stage(launched_status(state=F, reason=Reason.DEADLINE), observed_job(RUNNING_POD, terminating=True)),
        F,
        Reason.DEADLINE,
    ),
    "a failed stage does not delete a job of another owner": Case(
        single_stage(launched_status(state=F, reason=Reason.DEADLINE), observed_job(RUNNING_POD, uid="x", owned=False)),
        F,
        Reason.DEADLINE,
    ),
    "a failed stage keeps its ended job and its log": Case(
        single_stage(launched_status(state=F, reason=Reason.EXIT_PERMANENT), failed_job(2)), F, Reason.EXIT_PERMANENT
    ),
    "a stage that is done stays done": Case(single_stage(PARENT, observed_job(condition="Succeeded")), D, Reason.DONE),
    "a failed job without an exit code counts as killed": Case(
        single_stage(launched_status(), failed_job(None)), W, Reason.RETRYING, (), "exit code 137"
    ),
    "the last error of the stage is reported": Case(
        single_stage(launched_status(), failed_job(2, last_error="epochs: must be > 0")),
        F,
        Reason.EXIT_PERMANENT,
        (),
        "epochs: must be > 0",
    ),
    **{
        f"a pending job reports why: {name}": Case(single_stage(STARTING_STATUS, observed), S, reason, (), message)
        for name, (observed, reason, message) in PENDING.items()
    },
    **{
        f"exit code {code} is {'retried' if is_retryable(code) else 'permanent'}": Case(
            single_stage(launched_status(), failed_job(code)),
            *((W, Reason.RETRYING) if is_retryable(code) else (F, Reason.EXIT_PERMANENT)),
            message=f"{'transient' if is_retryable(code) else 'permanent'} error (exit code {int(code)})",
        )
        for code in ExitCode
        if code is not ExitCode.DONE
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_observed_state_leads_to_the_expected_decision(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("code", [code for code in ExitCode if is_retryable(code)])
def test_failed_attempts_are_retried_with_backoff_until_retries_are_used_up(code: int) -> None:
    observed = single_stage(unlaunched_status(), NO_JOB)
    delays = []
    for attempt in (1, 2, 3):
        plan = decide(observed)
        assert plan.actions == (Launch("data", attempt),) and stage_of(plan).not_before is None
        plan = decide(
            next_observed(with_stage(observed, data=failed_job(code, attempt=attempt, uid=f"u{attempt}")), plan)
        )
        stage = stage_of(plan)
        assert stage.attempts[-1].exit_code == code and stage.attempts[-1].ended == observed.now
        if stage.not_before is not None:
            delays.append(stage.not_before - observed.now)
            observed = next_observed(with_stage(observed, data=NO_JOB), plan, now=stage.not_before)
    assert delays == [1.0, 2.0]
    assert (stage.state, stage.reason, stage.ended, len(stage.attempts)) == (F, Reason.RETRIES_SPENT, observed.now, 3)
    assert stage.message.startswith(f"exit code {int(code)}, and no retries are left (retries: 2)")


def test_completed_stage_has_outputs_and_a_closed_attempt() -> None:
    stage = stage_of(CASES["a job that succeeded with a result is done"].check())
    assert (stage.outputs, stage.metrics) == (RESULT.outputs, RESULT.metrics)
    assert (stage.ended, stage.attempts[0].ended, stage.attempts[0].exit_code) == (NOW, NOW, 0)
    assert stage_of(CASES["an existing result is used and nothing is started"].check()).attempts == []


def test_lost_pod_is_counted_once() -> None:
    observed = single_stage(launched_status(pods={POD.name: "p1"}), observed_job(REPLACEMENT_POD))
    plan = decide(observed)
    assert (stage_of(plan).failures, len(stage_of(plan).attempts)) == (1, 1)
    assert stage_of(decide(next_observed(observed, plan))).failures == 1


def test_pods_lost_together_count_as_one_failure() -> None:
    pods = [replace(RUNNING_POD, name=name, uid="new") for name in "abc"]
    stage = stage_of(decide(single_stage(launched_status(pods=dict.fromkeys("abc", "old")), observed_job(*pods))))
    assert (stage.failures, stage.state) == (1, R)


def test_pods_of_a_new_attempt_are_not_counted_as_lost() -> None:
    observed = single_stage(backoff(-1, pods={POD.name: "p1"}), NO_JOB)
    started = next_observed(
        with_stage(observed, data=observed_job(REPLACEMENT_POD, uid="u2", attempt=2)), decide(observed)
    )
    assert (stage_of(decide(started)).failures, stage_of(decide(started)).job_uid) == (1, "u2")


def test_lost_pod_is_counted_after_an_observation_without_pods() -> None:
    observed = single_stage(launched_status(pods={POD.name: "p1"}), observed_job())
    plan = decide(observed)
    assert stage_of(decide(next_observed(with_stage(observed, data=observed_job(REPLACEMENT_POD)), plan))).failures == 1


def test_terminating_pod_is_not_lost_until_it_is_replaced() -> None:
    terminating = single_stage(
        launched_status(pods={POD.name: "p1"}), observed_job(replace(RUNNING_POD, terminating=True))
    )
    assert stage_of(decide(terminating)).failures == 0
    left_over = single_stage(launched_status(), observed_job(replace(RUNNING_POD, terminating=True)))
    assert (
        stage_of(
            decide(next_observed(with_stage(left_over, data=observed_job(REPLACEMENT_POD)), decide(left_over)))
        ).failures
        == 0
    )


def test_pending_time_starts_with_the_first_pending_observation() -> None:
    plan = decide(single_stage(launched_status(), observed_job(POD)))
    assert stage_of(plan).pending_since == NOW
    plan = decide(next_observed(single_stage(launched_status(), observed_job(POD)), plan, now=NOW + 50))
    assert stage_of(plan).pending_since == NOW
    assert (
        stage_of(decide(next_observed(single_stage(launched_status(), observed_job(RUNNING_POD)), plan))).pending_since
        is None
    )


def test_progress_is_kept_until_the_attempt_ends() -> None:
    assert (
        stage_of(decide(single_stage(launched_status(), observed_job(RUNNING_POD, progress="train 3/9")))).progress
        == "train 3/9"
    )
    reported = launched_status(progress="train 3/9")
    assert stage_of(decide(single_stage(reported, observed_job(RUNNING_POD)))).progress == "train 3/9"
    assert stage_of(decide(single_stage(reported, failed_job(129)))).progress == ""


def test_independent_stages_start_together() -> None:
    plan = decide(run(*((curate(name), unlaunched_status(name), NO_JOB) for name in "abc")))
    assert plan.actions == (Launch("a", 1), Launch("b", 1), Launch("c", 1))


@pytest.mark.parametrize(
    ("status", "observed", "state", "actions"),
    [
        (unlaunched_status("b"), NO_JOB, W, ()),
        (None, NO_JOB, W, ()),
        (launched_status("b"), observed_job(RUNNING_POD), R, ()),
        (launched_status("b", S, job_uid=""), NO_JOB, S, (Launch("b", 1),)),
        (backoff(-1).model_copy(update={"name": "b"}), NO_JOB, S, (Launch("b", 2),)),
    ],
    ids=["not started", "new", "running", "launched", "in backoff"],
)
def test_stages_that_have_started_continue_after_a_failure_of_another(
    status: StageStatus | None, observed: ObservedStage, state: RunState, actions: tuple[object, ...]
) -> None:
    failed = launched_status("a", F, reason=Reason.EXIT_PERMANENT)
    plan = decide(run((curate("a"), failed, failed_job(2)), (curate("b"), status, observed)))
    stage = stage_of(plan, "b")
    assert (stage.state, plan.actions) == (state, actions)
    if state is W:
        assert (stage.reason, stage.message) == (Reason.STAGE_FAILED, "not started because a failed")


def test_failure_message_is_kept_until_the_next_attempt() -> None:
    plan = decide(single_stage(backoff(1), failed_job(129, terminating=True)))
    plan = decide(next_observed(single_stage(backoff(1), NO_JOB), plan))
    assert "exit code 129" in stage_of(plan).message


def test_exit_code_of_the_container_is_recorded() -> None:
    killed = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=137, terminated="OOMKilled"),))
    stage = stage_of(decide(single_stage(launched_status(), observed_job(killed, condition="Failed"))))
    assert stage.attempts[0].exit_code == 137 and "OOMKilled" in stage.message


def test_pod_on_a_lost_node_is_force_deleted_after_its_grace_period() -> None:
    terminating = replace(RUNNING_POD, terminating=True, deletion_deadline=NOW - 30)
    assert decide(single_stage(launched_status(), observed_job(terminating))).actions == ()
    stuck = replace(terminating, deletion_deadline=NOW - 61)
    assert decide(single_stage(launched_status(), observed_job(stuck))).actions == (
        ForceDeletePod("data", stuck.name, stuck.uid),
    )
    assert (
        ForceDeletePod("data", stuck.name, stuck.uid)
        in decide(single_stage(launched_status(), observed_job(stuck, terminating=True))).actions
    )


def test_job_is_pending_while_one_of_its_pods_cannot_be_scheduled() -> None:
    observed = single_stage(
        launched_status(), observed_job(replace(RUNNING_POD, name="b"), NO_NODE), pending_timeout_seconds=600
    )
    plan = decide(observed)
    assert (stage_of(plan).state, stage_of(plan).reason, stage_of(plan).pending_since) == (R, Reason.NO_NODE, NOW)
    late = decide(next_observed(observed, plan, now=NOW + 601))
    assert stage_of(late).reason is Reason.PENDING_TOO_LONG and DeleteJob("data", "u1") in late.actions
