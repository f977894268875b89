"""A run suspended and resumed, by its spec or by a queue, in each state of a stage; what that does to its deadline."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1_operator.actions import Action, Drop, Hold, Launch, Load, Remove, Resolve
from editr1_operator.decide import Plan, decide
from editr1_operator.facts import RunFacts, StageFacts
from tests.unit.operator.conftest import (
    NOTHING,
    NOW,
    POD,
    RESULT,
    RUNS,
    Case,
    asked,
    backoff,
    ended,
    fresh,
    known,
    next_facts,
    one,
    seen,
    stage_of,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
HELD = RunState.SUSPENDED
HOLDS: dict[str, Any] = {"reason": Reason.SUSPENDED, "held_since": NOW - 50}
WAS_HELD = known(state=HELD, **HOLDS)
QUEUED = seen(suspended=True, queue="research")

SUSPENDED: dict[str, tuple[StageStatus | None, StageFacts, tuple[Action, ...], str]] = {
    "is not started": (fresh(), NOTHING, (), "not started yet"),
    "is not asked for again": (known(state=S, job_uid="", pending_since=NOW), NOTHING, (), "resume goes on from there"),
    "is held while its pods start": (known(state=S), seen(POD), (Hold("data", True),), "resume goes on from there"),
    "is held where it runs": (known(), seen(RUNS), (Hold("data", True),), "resume goes on from there"),
    "is held though its job was never seen": (known(state=S, job_uid=""), seen(RUNS), (Hold("data", True),), ""),
    "is held once": (WAS_HELD, seen(suspended=True), (), "resume goes on from there"),
    "stays held without its job": (WAS_HELD, NOTHING, (), "resume goes on from there"),
    "stays in its queue": (known(state=W, reason=Reason.QUEUED), QUEUED, (), ""),
    "is removed where a queue let it go": (known(), seen(RUNS, queue="research"), (Remove("data", "u1"),), ""),
    "has left its queue": (WAS_HELD, seen(suspended=True, queue="research", leaving=True), (), ""),
    "does not start while its backoff runs": (backoff(1), NOTHING, (), "resume goes on from there"),
    "does not start after its backoff": (backoff(-1), NOTHING, (), "resume goes on from there"),
}
CASES = {
    **{
        f"a suspended stage {name}": Case(one(status, facts, suspend=True), HELD, Reason.SUSPENDED, does, says)
        for name, (status, facts, does, says) in SUSPENDED.items()
    },
    "a suspended stage is resolved, for its result may stand": Case(
        one(None, NOTHING, suspend=True), W, None, (Resolve("data"),)
    ),
    "a suspended stage whose result stands is done": Case(
        one(fresh(), replace(NOTHING, result=RESULT, result_read=True), suspend=True), D, Reason.STANDS
    ),
    "a suspended stage that was faster is done": Case(
        one(known(), seen(condition="Succeeded"), suspend=True), R, None, (Load("data"),)
    ),
    "a suspended stage that failed before it was held has failed": Case(
        one(known(), ended(2), suspend=True), F, Reason.EXIT_PERMANENT
    ),
    "a suspended stage's failed job is removed all the same": Case(
        one(backoff(1), ended(129), suspend=True), W, Reason.RETRYING, (Remove("data", "u1"),)
    ),
    "a suspended stage meets no deadline": Case(
        one(known(), seen(RUNS), suspend=True, deadline_seconds=99), HELD, Reason.SUSPENDED, (Hold("data", True),)
    ),
    "a resumed stage that never started starts": Case(
        one(fresh(state=HELD, held_since=NOW), NOTHING),
        S,
        Reason.PODS_STARTING,
        (Launch("data", 1),),
    ),
    "a resumed stage goes on with its job": Case(
        one(WAS_HELD, seen(suspended=True)), S, Reason.PODS_STARTING, (Hold("data", False),)
    ),
    "a resumed stage waits for its old pods, which would fail its job": Case(
        one(WAS_HELD, seen(replace(RUNS, leaving=True, gone_by=NOW + 30), suspended=True)),
        HELD,
        Reason.SUSPENDED,
        (),
        "old pods are gone",
    ),
    "a resumed stage drops an old pod whose node is gone": Case(
        one(WAS_HELD, seen(replace(RUNS, leaving=True, gone_by=NOW - 61), suspended=True)),
        HELD,
        Reason.SUSPENDED,
        (Drop("data", RUNS.name, "p1"),),
    ),
    "a resumed stage whose job is gone starts the same attempt": Case(
        one(WAS_HELD, NOTHING), S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"
    ),
    "a resumed stage that was asked for is asked for again": Case(
        one(known(state=HELD, job_uid="", **HOLDS), NOTHING), S, Reason.PODS_STARTING, (Launch("data", 1),)
    ),
    "a resumed stage waits for the rest of its backoff": Case(one(backoff(1, **HOLDS), NOTHING), W, Reason.RETRYING),
    "a resumed stage starts anew after its backoff": Case(
        one(backoff(-1, **HOLDS), NOTHING), S, Reason.PODS_STARTING, (Launch("data", 2),), "attempt 2"
    ),
    "a job held by a queue is queued and left to it": Case(
        one(known(state=S, pending_since=NOW - 9999), QUEUED), W, Reason.QUEUED, (), "held by queue research"
    ),
    "a job that its queue lets go starts": Case(
        one(known(state=W, reason=Reason.QUEUED), seen(POD, queue="research")), S, Reason.PODS_STARTING
    ),
    "a resumed stage whose job still leaves its queue waits for that": Case(
        one(WAS_HELD, seen(suspended=True, queue="research", leaving=True)),
        *(S, Reason.PODS_STARTING, (), "its last pods are leaving"),
    ),
    "a job that somebody else suspended goes on": Case(
        one(known(), seen(suspended=True)), S, Reason.PODS_STARTING, (Hold("data", False),)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_seen_of_a_stage_decides_what_suspend_and_resume_do(case: Case) -> None:
    case.check()


def held_for(seconds: float, facts: RunFacts, job: StageFacts) -> tuple[RunFacts, Plan]:
    """Suspend now, with ``job`` what is left of it then, look at it once, and resume after ``seconds``."""
    suspended = replace(facts, spec=facts.spec.model_copy(update={"suspend": True}))
    plan = decide(suspended)
    plan = decide(next_facts(with_stage(suspended, data=job), plan, now=NOW + seconds / 2))
    assert stage_of(plan).pending_since is None
    later = next_facts(with_stage(facts, data=job), plan, now=NOW + seconds)
    return later, decide(later)


@pytest.mark.parametrize(("later", "state"), [(1090, R), (1110, F)])
@pytest.mark.parametrize("job", [seen(suspended=True), NOTHING], ids=["held", "gone"])
def test_time_held_does_not_count_towards_the_deadline(job: StageFacts, later: float, state: RunState) -> None:
    before = known(attempts=[asked(600)], held_s=500.0)
    facts, plan = held_for(1000, one(before, seen(RUNS), deadline_seconds=200), job)
    assert len(stage_of(plan).attempts) == 1
    plan = decide(next_facts(with_stage(facts, data=seen(RUNS, uid="u2")), plan, now=NOW + later))
    assert stage_of(plan).state is state
    assert stage_of(plan).reason is (Reason.RUNNING if state is R else Reason.DEADLINE)


def test_pods_that_come_back_after_a_hold_are_no_lost_ones() -> None:
    facts, plan = held_for(9, one(known(pods={POD.name: "p1"}), seen(RUNS)), seen(suspended=True))
    plan = decide(next_facts(with_stage(facts, data=seen(replace(RUNS, uid="p2"))), plan))
    assert (stage_of(plan).failures, stage_of(plan).state) == (0, R)


@pytest.mark.parametrize("job", [seen(suspended=True), NOTHING], ids=["held", "gone"])
def test_waiting_for_pods_is_timed_anew_after_a_hold(job: StageFacts) -> None:
    pending = known(state=S, pending_since=NOW - 590)
    facts, plan = held_for(1000, one(pending, seen(POD)), job)
    assert stage_of(plan).pending_since == NOW + 1000
    assert stage_of(decide(next_facts(with_stage(facts, data=seen(POD)), plan))).state is S


def test_a_stage_suspended_before_it_started_starts_now_not_in_the_future() -> None:
    _, plan = held_for(1000, one(fresh(), NOTHING), NOTHING)
    assert [item.started for item in stage_of(plan).attempts] == [NOW + 1000]
    assert stage_of(plan).held_s == 0


def test_no_attempt_ends_before_it_starts() -> None:
    _, plan = held_for(1000, one(backoff(-1), NOTHING, deadline_seconds=200), NOTHING)
    assert plan.actions == (Launch("data", 2),)
    first = stage_of(plan).attempts[0]
    assert first.ended is not None and first.started <= first.ended


@pytest.mark.parametrize("facts", [one(known(), seen(RUNS)), one(fresh(), seen(RUNS))], ids=["started", "not seen"])
def test_a_run_resumed_before_its_job_was_held_is_not_held_any_more(facts: RunFacts) -> None:
    _, plan = held_for(9, facts, seen(RUNS))
    assert (stage_of(plan).state, stage_of(plan).held_since) == (R, None)


def test_a_job_taken_from_its_queue_by_suspend_is_no_failed_one() -> None:
    _, plan = held_for(1000, one(known(), seen(RUNS, queue="research")), NOTHING)
    assert plan.actions == (Launch("data", 1),)
    assert (len(stage_of(plan).attempts), stage_of(plan).failures) == (1, 0)


def test_a_stage_resumed_in_its_backoff_says_what_it_waits_for() -> None:
    _, plan = held_for(1, one(backoff(9), NOTHING), NOTHING)
    assert stage_of(plan).reason is Reason.RETRYING
    assert "resume" not in stage_of(plan).message


@pytest.mark.parametrize("job", [QUEUED, replace(QUEUED, uid="u2")], ids=["seen before", "not seen before"])
def test_a_job_that_its_queue_holds_is_left_to_it_after_suspend_and_resume(job: StageFacts) -> None:
    _, plan = held_for(1000, one(known(state=W, reason=Reason.QUEUED), job), job)
    assert (plan.actions, stage_of(plan).reason) == ((), Reason.QUEUED)


def test_a_run_resumed_before_its_job_was_seen_to_leave_its_queue_has_no_failure() -> None:
    facts = one(known(), seen(RUNS, queue="research"), retries=0)
    _, plan = held_for(1, facts, facts.stages["data"])
    gone = with_stage(facts, data=replace(NOTHING, result_read=True))
    assert stage_of(decide(next_facts(gone, plan, now=NOW + 2))).state is not F


def test_pods_that_come_back_after_a_queue_has_preempted_them_are_no_lost_ones() -> None:
    running = one(known(pods={POD.name: "p1"}), seen(RUNS, queue="research"))
    plan = decide(next_facts(with_stage(running, data=QUEUED), decide(running)))
    assert stage_of(plan).reason is Reason.QUEUED
    again = with_stage(running, data=seen(replace(RUNS, uid="p2"), queue="research"))
    assert stage_of(decide(next_facts(again, plan))).failures == 0


@pytest.mark.parametrize("limit", ["deadline_seconds", "pending_timeout_seconds"])
def test_time_in_a_queue_counts_towards_no_limit(limit: str) -> None:
    queued = one(known(attempts=[asked(0)], pending_since=NOW), QUEUED, **{limit: 200})
    plan = decide(next_facts(queued, decide(queued), now=NOW + 500))
    plan = decide(next_facts(queued, plan, now=NOW + 1000))
    assert stage_of(plan).reason is Reason.QUEUED
    let_go = with_stage(queued, data=seen(POD, queue="research"))
    for later in (1001, 1002):
        plan = decide(next_facts(let_go, plan, now=NOW + later))
        assert stage_of(plan).state is S
