"""Suspending and resuming a run, by its specification or by a queue, in each state of a stage, and the effect on deadlines."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1_operator.actions import Action, DeleteJob, ForceDeletePod, Launch, LoadResult, Resolve, SetSuspended
from editr1_operator.decide import Plan, decide
from editr1_operator.observed import ObservedRun, ObservedStage
from tests.unit.operator.conftest import (
    NOTHING,
    NOW,
    POD,
    RESULT,
    RUNS,
    Case,
    backoff,
    ended,
    fresh,
    known,
    launched,
    next_observed,
    one,
    seen,
    stage_of,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
P = RunState.SUSPENDED
SUSPENSION: dict[str, Any] = {"reason": Reason.SUSPENDED, "suspended_since": NOW - 50}
PAUSED = known(state=P, **SUSPENSION)
QUEUED = seen(suspended=True, queue="research")

SUSPENDED: dict[str, tuple[StageStatus | None, ObservedStage, tuple[Action, ...], str]] = {
    "is not started": (fresh(), NOTHING, (), "not started yet"),
    "is not launched again": (
        known(state=S, job_uid="", pending_since=NOW),
        NOTHING,
        (),
        "continues from its last checkpoint",
    ),
    "is suspended while its pods start": (
        known(state=S),
        seen(POD),
        (SetSuspended("data", True),),
        "continues from its last checkpoint",
    ),
    "is suspended while it runs": (
        known(),
        seen(RUNS),
        (SetSuspended("data", True),),
        "continues from its last checkpoint",
    ),
    "is suspended although its job was never seen": (
        known(state=S, job_uid=""),
        seen(RUNS),
        (SetSuspended("data", True),),
        "",
    ),
    "is suspended once": (
        PAUSED,
        seen(suspended=True),
        (),
        "continues from its last checkpoint",
    ),
    "stays suspended without its job": (
        PAUSED,
        NOTHING,
        (),
        "continues from its last checkpoint",
    ),
    "stays in its queue": (known(state=W, reason=Reason.QUEUED), QUEUED, (), ""),
    "is deleted if a queue admitted it": (known(), seen(RUNS, queue="research"), (DeleteJob("data", "u1"),), ""),
    "is leaving its queue": (PAUSED, seen(suspended=True, queue="research", terminating=True), (), ""),
    "does not start during its backoff": (
        backoff(1),
        NOTHING,
        (),
        "continues from its last checkpoint",
    ),
    "does not start after its backoff": (
        backoff(-1),
        NOTHING,
        (),
        "continues from its last checkpoint",
    ),
}
CASES = {
    **{
        f"a suspended stage {name}": Case(one(status, observed, suspend=True), P, Reason.SUSPENDED, does, says)
        for name, (status, observed, does, says) in SUSPENDED.items()
    },
    "a suspended stage is resolved, since its result may exist": Case(
        one(None, NOTHING, suspend=True), W, None, (Resolve("data"),)
    ),
    "a suspended stage with an existing result is done": Case(
        one(fresh(), replace(NOTHING, result=RESULT, result_read=True), suspend=True), D, Reason.UP_TO_DATE
    ),
    "the result of a suspended stage that succeeded first is read": Case(
        one(known(), seen(condition="Succeeded"), suspend=True), R, None, (LoadResult("data"),)
    ),
    "a suspended stage that failed first has failed": Case(
        one(known(), ended(2), suspend=True), F, Reason.EXIT_PERMANENT
    ),
    "the failed job of a suspended stage is deleted": Case(
        one(backoff(1), ended(129), suspend=True), W, Reason.RETRYING, (DeleteJob("data", "u1"),)
    ),
    "a suspended stage has no deadline": Case(
        one(known(), seen(RUNS), suspend=True, deadline_seconds=99), P, Reason.SUSPENDED, (SetSuspended("data", True),)
    ),
    "a resumed stage that never started starts": Case(
        one(fresh(state=P, suspended_since=NOW), NOTHING),
        S,
        Reason.PODS_STARTING,
        (Launch("data", 1),),
    ),
    "a resumed stage continues with its job": Case(
        one(PAUSED, seen(suspended=True)), S, Reason.PODS_STARTING, (SetSuspended("data", False),)
    ),
    "a resumed stage waits for its old pods to stop": Case(
        one(PAUSED, seen(replace(RUNS, terminating=True, deletion_deadline=NOW + 30), suspended=True)),
        P,
        Reason.SUSPENDED,
        (),
        "resumes as soon as its old pods have stopped",
    ),
    "a resumed stage force-deletes an old pod on a lost node": Case(
        one(PAUSED, seen(replace(RUNS, terminating=True, deletion_deadline=NOW - 61), suspended=True)),
        P,
        Reason.SUSPENDED,
        (ForceDeletePod("data", RUNS.name, "p1"),),
    ),
    "a resumed stage without its job launches the same attempt": Case(
        one(PAUSED, NOTHING), S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"
    ),
    "a resumed stage that was launched is launched again": Case(
        one(known(state=P, job_uid="", **SUSPENSION), NOTHING), S, Reason.PODS_STARTING, (Launch("data", 1),)
    ),
    "a resumed stage waits for the rest of its backoff": Case(
        one(backoff(1, **SUSPENSION), NOTHING), W, Reason.RETRYING
    ),
    "a resumed stage starts its next attempt after its backoff": Case(
        one(backoff(-1, **SUSPENSION), NOTHING), S, Reason.PODS_STARTING, (Launch("data", 2),), "attempt 2"
    ),
    "a job that waits in a queue is left to the queue": Case(
        one(known(state=S, pending_since=NOW - 9999), QUEUED),
        W,
        Reason.QUEUED,
        (),
        "waiting for admission by queue research",
    ),
    "a job that its queue admits starts": Case(
        one(known(state=W, reason=Reason.QUEUED), seen(POD, queue="research")), S, Reason.PODS_STARTING
    ),
    "a resumed stage waits until its job has left its queue": Case(
        one(PAUSED, seen(suspended=True, queue="research", terminating=True)),
        *(S, Reason.PODS_STARTING, (), "waiting for the pods of the previous attempt to stop"),
    ),
    "a job that someone else suspended is resumed": Case(
        one(known(), seen(suspended=True)), S, Reason.PODS_STARTING, (SetSuspended("data", False),)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision_for_suspend_and_resume(case: Case) -> None:
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
@pytest.mark.parametrize("job", [seen(suspended=True), NOTHING], ids=["suspended", "deleted"])
def test_suspended_time_does_not_count_towards_the_deadline(job: ObservedStage, later: float, state: RunState) -> None:
    before = known(attempts=[launched(600)], suspended_seconds=500.0)
    observed, plan = suspend_for(1000, one(before, seen(RUNS), deadline_seconds=200), job)
    assert len(stage_of(plan).attempts) == 1
    plan = decide(next_observed(with_stage(observed, data=seen(RUNS, uid="u2")), plan, now=NOW + later))
    assert stage_of(plan).state is state
    assert stage_of(plan).reason is (Reason.RUNNING if state is R else Reason.DEADLINE)


def test_pods_after_a_suspension_are_not_counted_as_lost() -> None:
    observed, plan = suspend_for(9, one(known(pods={POD.name: "p1"}), seen(RUNS)), seen(suspended=True))
    plan = decide(next_observed(with_stage(observed, data=seen(replace(RUNS, uid="p2"))), plan))
    assert (stage_of(plan).failures, stage_of(plan).state) == (0, R)


@pytest.mark.parametrize("job", [seen(suspended=True), NOTHING], ids=["suspended", "deleted"])
def test_pending_time_restarts_after_a_suspension(job: ObservedStage) -> None:
    pending = known(state=S, pending_since=NOW - 590)
    observed, plan = suspend_for(1000, one(pending, seen(POD)), job)
    assert stage_of(plan).pending_since == NOW + 1000
    assert stage_of(decide(next_observed(with_stage(observed, data=seen(POD)), plan))).state is S


def test_stage_suspended_before_its_start_has_the_start_time_of_its_resume() -> None:
    _, plan = suspend_for(1000, one(fresh(), NOTHING), NOTHING)
    assert [item.started for item in stage_of(plan).attempts] == [NOW + 1000]
    assert stage_of(plan).suspended_seconds == 0


def test_no_attempt_ends_before_it_starts() -> None:
    _, plan = suspend_for(1000, one(backoff(-1), NOTHING, deadline_seconds=200), NOTHING)
    assert plan.actions == (Launch("data", 2),)
    first = stage_of(plan).attempts[0]
    assert first.ended is not None and first.started <= first.ended


@pytest.mark.parametrize("observed", [one(known(), seen(RUNS)), one(fresh(), seen(RUNS))], ids=["started", "not seen"])
def test_run_resumed_before_its_job_was_suspended_is_running(observed: ObservedRun) -> None:
    _, plan = suspend_for(9, observed, seen(RUNS))
    assert (stage_of(plan).state, stage_of(plan).suspended_since) == (R, None)


def test_job_deleted_from_its_queue_by_suspend_is_not_a_failure() -> None:
    _, plan = suspend_for(1000, one(known(), seen(RUNS, queue="research")), NOTHING)
    assert plan.actions == (Launch("data", 1),)
    assert (len(stage_of(plan).attempts), stage_of(plan).failures) == (1, 0)


def test_stage_resumed_during_its_backoff_reports_the_failure() -> None:
    _, plan = suspend_for(1, one(backoff(9), NOTHING), NOTHING)
    assert stage_of(plan).reason is Reason.RETRYING
    assert "resume" not in stage_of(plan).message


@pytest.mark.parametrize("job", [QUEUED, replace(QUEUED, uid="u2")], ids=["seen before", "not seen before"])
def test_queued_job_is_left_to_its_queue_after_suspend_and_resume(job: ObservedStage) -> None:
    _, plan = suspend_for(1000, one(known(state=W, reason=Reason.QUEUED), job), job)
    assert (plan.actions, stage_of(plan).reason) == ((), Reason.QUEUED)


def test_run_resumed_before_its_job_left_its_queue_has_no_failure() -> None:
    observed = one(known(), seen(RUNS, queue="research"), retries=0)
    _, plan = suspend_for(1, observed, observed.stages["data"])
    gone = with_stage(observed, data=replace(NOTHING, result_read=True))
    assert stage_of(decide(next_observed(gone, plan, now=NOW + 2))).state is not F


def test_pods_after_a_preemption_by_the_queue_are_not_counted_as_lost() -> None:
    running = one(known(pods={POD.name: "p1"}), seen(RUNS, queue="research"))
    plan = decide(next_observed(with_stage(running, data=QUEUED), decide(running)))
    assert stage_of(plan).reason is Reason.QUEUED
    again = with_stage(running, data=seen(replace(RUNS, uid="p2"), queue="research"))
    assert stage_of(decide(next_observed(again, plan))).failures == 0


@pytest.mark.parametrize("limit", ["deadline_seconds", "pending_timeout_seconds"])
def test_queued_time_counts_towards_no_limit(limit: str) -> None:
    queued = one(known(attempts=[launched(0)], pending_since=NOW), QUEUED, **{limit: 200})
    plan = decide(next_observed(queued, decide(queued), now=NOW + 500))
    plan = decide(next_observed(queued, plan, now=NOW + 1000))
    assert stage_of(plan).reason is Reason.QUEUED
    admitted = with_stage(queued, data=seen(POD, queue="research"))
    for later in (1001, 1002):
        plan = decide(next_observed(admitted, plan, now=NOW + later))
        assert stage_of(plan).state is S
