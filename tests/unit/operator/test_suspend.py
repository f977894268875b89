"""Decisions for runs that are suspended or resumed by their specification or by a queue, and their deadlines."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1_operator.actions import Action, DeleteJob, ForceDeletePod, Launch, LoadResult, Resolve, SetSuspended
from editr1_operator.decide import Plan, decide
from editr1_operator.observed import ObservedRun, ObservedStage
from tests.unit.operator.conftest import (
    NO_JOB,
    NOW,
    POD,
    RESULT,
    RUNNING_POD,
    Case,
    backoff,
    failed_job,
    launched,
    launched_status,
    next_observed,
    observed_job,
    single_stage,
    stage_of,
    unlaunched_status,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
P = RunState.SUSPENDED
SUSPENSION: dict[str, Any] = {"reason": Reason.SUSPENDED, "suspended_since": NOW - 50}
SUSPENDED_STAGE = launched_status(state=P, **SUSPENSION)
HELD_JOB = observed_job(suspended=True, suspended_by_run=False)
QUEUED_JOB = observed_job(suspended=True, queue="research")

SUSPENDED: dict[str, tuple[StageStatus | None, ObservedStage, tuple[Action, ...], str]] = {
    "is not started": (unlaunched_status(), NO_JOB, (), "not started yet"),
    "is not launched again": (
        launched_status(state=S, job_uid="", pending_since=NOW),
        NO_JOB,
        (),
        "continues from its last checkpoint",
    ),
    "is suspended while its pods start": (
        launched_status(state=S),
        observed_job(POD),
        (SetSuspended("data", True),),
        "continues from its last checkpoint",
    ),
    "is suspended while it runs": (
        launched_status(),
        observed_job(RUNNING_POD),
        (SetSuspended("data", True),),
        "continues from its last checkpoint",
    ),
    "is suspended although its job was never observed": (
        launched_status(state=S, job_uid=""),
        observed_job(RUNNING_POD),
        (SetSuspended("data", True),),
        "",
    ),
    "is suspended once": (
        SUSPENDED_STAGE,
        observed_job(suspended=True),
        (),
        "continues from its last checkpoint",
    ),
    "stays suspended without its job": (
        SUSPENDED_STAGE,
        NO_JOB,
        (),
        "continues from its last checkpoint",
    ),
    "stays in its queue": (launched_status(state=W, reason=Reason.QUEUED), QUEUED_JOB, (), ""),
    "is deleted if a queue admitted it": (
        launched_status(),
        observed_job(RUNNING_POD, queue="research"),
        (DeleteJob("data", "u1"),),
        "",
    ),
    "is leaving its queue": (SUSPENDED_STAGE, observed_job(suspended=True, queue="research", terminating=True), (), ""),
    "does not start during its backoff": (
        backoff(1),
        NO_JOB,
        (),
        "continues from its last checkpoint",
    ),
    "does not start after its backoff": (
        backoff(-1),
        NO_JOB,
        (),
        "continues from its last checkpoint",
    ),
}
CASES = {
    **{
        f"a suspended stage {name}": Case(
            single_stage(status, observed, suspend=True), P, Reason.SUSPENDED, actions, message
        )
        for name, (status, observed, actions, message) in SUSPENDED.items()
    },
    "a suspended stage is resolved, since its result may exist": Case(
        single_stage(None, NO_JOB, suspend=True), W, None, (Resolve("data"),)
    ),
    "a suspended stage with an existing result is done": Case(
        single_stage(unlaunched_status(), replace(NO_JOB, result=RESULT, result_read=True), suspend=True),
        D,
        Reason.UP_TO_DATE,
    ),
    "the result of a suspended stage that succeeded first is read": Case(
        single_stage(launched_status(), observed_job(condition="Succeeded"), suspend=True),
        R,
        None,
        (LoadResult("data"),),
    ),
    "a suspended stage that failed first has failed": Case(
        single_stage(launched_status(), failed_job(2), suspend=True), F, Reason.EXIT_PERMANENT
    ),
    "the failed job of a suspended stage is deleted": Case(
        single_stage(backoff(1), failed_job(129), suspend=True), W, Reason.RETRYING, (DeleteJob("data", "u1"),)
    ),
    "a suspended stage has no deadline": Case(
        single_stage(launched_status(), observed_job(RUNNING_POD), suspend=True, deadline_seconds=99),
        P,
        Reason.SUSPENDED,
        (SetSuspended("data", True),),
    ),
    "a resumed stage that never started starts": Case(
        single_stage(unlaunched_status(state=P, suspended_since=NOW), NO_JOB),
        S,
        Reason.PODS_STARTING,
        (Launch("data", 1),),
    ),
    "a resumed stage continues with its job": Case(
        single_stage(SUSPENDED_STAGE, observed_job(suspended=True)),
        S,
        Reason.PODS_STARTING,
        (SetSuspended("data", False),),
    ),
    "a resumed stage waits for its old pods to stop": Case(
        single_stage(
            SUSPENDED_STAGE,
            observed_job(replace(RUNNING_POD, terminating=True, deletion_deadline=NOW + 30), suspended=True),
        ),
        P,
        Reason.SUSPENDED,
        (),
        "resumes as soon as its old pods have stopped",
    ),
    "a resumed stage force-deletes an old pod on a lost node": Case(
        single_stage(
            SUSPENDED_STAGE,
            observed_job(replace(RUNNING_POD, terminating=True, deletion_deadline=NOW - 61), suspended=True),
        ),
        P,
        Reason.SUSPENDED,
        (ForceDeletePod("data", RUNNING_POD.name, "p1"),),
    ),
    "a resumed stage without its job launches the same attempt": Case(
        single_stage(SUSPENDED_STAGE, NO_JOB), S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"
    ),
    "a resumed stage that was launched is launched again": Case(
        single_stage(launched_status(state=P, job_uid="", **SUSPENSION), NO_JOB),
        S,
        Reason.PODS_STARTING,
        (Launch("data", 1),),
    ),
    "a resumed stage waits for the rest of its backoff": Case(
        single_stage(backoff(1, **SUSPENSION), NO_JOB), W, Reason.RETRYING
    ),
    "a resumed stage starts its next attempt after its backoff": Case(
        single_stage(backoff(-1, **SUSPENSION), NO_JOB), S, Reason.PODS_STARTING, (Launch("data", 2),), "attempt 2"
    ),
    "a job that waits in a queue is left to the queue": Case(
        single_stage(launched_status(state=S, pending_since=NOW - 9999), QUEUED_JOB),
        W,
        Reason.QUEUED,
        (),
        "waiting for admission by queue research",
    ),
    "a job that its queue admits starts": Case(
        single_stage(launched_status(state=W, reason=Reason.QUEUED), observed_job(POD, queue="research")),
        S,
        Reason.PODS_STARTING,
    ),
    "a resumed stage waits until its job has left its queue": Case(
        single_stage(SUSPENDED_STAGE, observed_job(suspended=True, queue="research", terminating=True)),
        *(S, Reason.PODS_STARTING, (), "waiting for the pods of the previous attempt to stop"),
    ),
    "a job that was suspended by someone else is left alone": Case(
        single_stage(launched_status(), HELD_JOB),
        W,
        Reason.HELD,
        (),
        "job lab-data is suspended by something other than this run",
    ),
    "a resumed stage whose job was suspended by someone else is left alone": Case(
        single_stage(SUSPENDED_STAGE, HELD_JOB), W, Reason.HELD
    ),
    "a job that was resumed by someone else starts": Case(
        single_stage(launched_status(state=W, reason=Reason.HELD, suspended_since=NOW - 50), observed_job(POD)),
        S,
        Reason.PODS_STARTING,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_suspend_and_resume_lead_to_the_expected_decision(case: Case) -> None:
    case.check()


def suspend_for(seconds: float, observed: ObservedRun, job: ObservedStage) -> tuple[ObservedRun, Plan]:
    """Suspend now, reconcile once with ``job`` as the observed job, and resume after ``seconds``."""
    suspended = replace(observed, spec=observed.spec.model_copy(update={"suspend": True}))
    plan = decide(suspended)
    plan = decide(next_observed(with_stage(suspended, data=job), plan, now=NOW + seconds / 2))
    assert stage_of(plan).pending_since is None
    later = next_observed(with_stage(observed, data=job), plan, now=NOW + seconds)
    return later, decide(later)


@pytest.mark.parametrize(("later", "state"), [(1090, R), (1110, F)])
@pytest.mark.parametrize("job", [observed_job(suspended=True), NO_JOB], ids=["suspended", "deleted"])
def test_suspended_time_does_not_count_towards_the_deadline(job: ObservedStage, later: float, state: RunState) -> None:
    before = launched_status(attempts=[launched(600)], suspended_seconds=500.0)
    observed, plan = suspend_for(1000, single_stage(before, observed_job(RUNNING_POD), deadline_seconds=200), job)
    assert len(stage_of(plan).attempts) == 1
    plan = decide(next_observed(with_stage(observed, data=observed_job(RUNNING_POD, uid="u2")), plan, now=NOW + later))
    assert stage_of(plan).state is state
    assert stage_of(plan).reason is (Reason.RUNNING if state is R else Reason.DEADLINE)


def test_pods_replaced_after_a_suspension_are_not_counted_as_lost() -> None:
    observed, plan = suspend_for(
        9, single_stage(launched_status(pods={POD.name: "p1"}), observed_job(RUNNING_POD)), observed_job(suspended=True)
    )
    plan = decide(next_observed(with_stage(observed, data=observed_job(replace(RUNNING_POD, uid="p2"))), plan))
    assert (stage_of(plan).failures, stage_of(plan).state) == (0, R)


@pytest.mark.parametrize("job", [observed_job(suspended=True), NO_JOB], ids=["suspended", "deleted"])
def test_pending_time_restarts_after_a_suspension(job: ObservedStage) -> None:
    pending = launched_status(state=S, pending_since=NOW - 590)
    observed, plan = suspend_for(1000, single_stage(pending, observed_job(POD)), job)
    assert stage_of(plan).pending_since == NOW + 1000
    assert stage_of(decide(next_observed(with_stage(observed, data=observed_job(POD)), plan))).state is S


def test_start_time_of_an_initially_suspended_stage_is_its_resume_time() -> None:
    _, plan = suspend_for(1000, single_stage(unlaunched_status(), NO_JOB), NO_JOB)
    assert [item.started for item in stage_of(plan).attempts] == [NOW + 1000]
    assert stage_of(plan).suspended_seconds == 0


def test_no_attempt_ends_before_it_starts() -> None:
    _, plan = suspend_for(1000, single_stage(backoff(-1), NO_JOB, deadline_seconds=200), NO_JOB)
    assert plan.actions == (Launch("data", 2),)
    first = stage_of(plan).attempts[0]
    assert first.ended is not None and first.started <= first.ended


@pytest.mark.parametrize(
    "observed",
    [
        single_stage(launched_status(), observed_job(RUNNING_POD)),
        single_stage(unlaunched_status(), observed_job(RUNNING_POD)),
    ],
    ids=["started", "not observed"],
)
def test_run_resumed_before_its_job_is_suspended_is_running(observed: ObservedRun) -> None:
    _, plan = suspend_for(9, observed, observed_job(RUNNING_POD))
    assert (stage_of(plan).state, stage_of(plan).suspended_since) == (R, None)


def test_job_deleted_from_its_queue_by_suspend_is_not_a_failure() -> None:
    _, plan = suspend_for(1000, single_stage(launched_status(), observed_job(RUNNING_POD, queue="research")), NO_JOB)
    assert plan.actions == (Launch("data", 1),)
    assert (len(stage_of(plan).attempts), stage_of(plan).failures) == (1, 0)


def test_stage_resumed_during_its_backoff_reports_the_failure() -> None:
    _, plan = suspend_for(1, single_stage(backoff(9), NO_JOB), NO_JOB)
    assert stage_of(plan).reason is Reason.RETRYING
    assert "resume" not in stage_of(plan).message


@pytest.mark.parametrize(
    "job", [QUEUED_JOB, replace(QUEUED_JOB, uid="u2")], ids=["observed before", "not observed before"]
)
def test_queued_job_is_unchanged_by_suspend_and_resume(job: ObservedStage) -> None:
    _, plan = suspend_for(1000, single_stage(launched_status(state=W, reason=Reason.QUEUED), job), job)
    assert (plan.actions, stage_of(plan).reason) == ((), Reason.QUEUED)


def test_run_resumed_before_its_queued_job_is_deleted_does_not_fail() -> None:
    observed = single_stage(launched_status(), observed_job(RUNNING_POD, queue="research"), retries=0)
    _, plan = suspend_for(1, observed, observed.stages["data"])
    gone = with_stage(observed, data=replace(NO_JOB, result_read=True))
    assert stage_of(decide(next_observed(gone, plan, now=NOW + 2))).state is not F


def test_pods_replaced_after_a_preemption_by_the_queue_are_not_counted_as_lost() -> None:
    running = single_stage(launched_status(pods={POD.name: "p1"}), observed_job(RUNNING_POD, queue="research"))
    plan = decide(next_observed(with_stage(running, data=QUEUED_JOB), decide(running)))
    assert stage_of(plan).reason is Reason.QUEUED
    again = with_stage(running, data=observed_job(replace(RUNNING_POD, uid="p2"), queue="research"))
    assert stage_of(decide(next_observed(again, plan))).failures == 0


@pytest.mark.parametrize("limit", ["deadline_seconds", "pending_timeout_seconds"])
def test_queued_time_does_not_count_towards_deadline_or_pending_timeout(limit: str) -> None:
    queued = single_stage(launched_status(attempts=[launched(0)], pending_since=NOW), QUEUED_JOB, **{limit: 200})
    plan = decide(next_observed(queued, decide(queued), now=NOW + 500))
    plan = decide(next_observed(queued, plan, now=NOW + 1000))
    assert stage_of(plan).reason is Reason.QUEUED
    admitted = with_stage(queued, data=observed_job(POD, queue="research"))
    for later in (1001, 1002):
        plan = decide(next_observed(admitted, plan, now=NOW + later))
        assert stage_of(plan).state is S
