"""A reward service: brought up before the stage that it scores, shared, kept, and given up."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, JobView, PodView, ReleaseView
from editr1.runs.spec import StageSpec
from editr1_operator.actions import Action, Hold, Launch, Leave, Load, Remove, Resolve, Serve
from editr1_operator.decide import decide
from editr1_operator.facts import RunFacts, StageFacts
from tests.unit.operator.conftest import (
    NOTHING,
    NOW,
    RESULT,
    RUNS,
    Case,
    asked,
    ended,
    fresh,
    known,
    next_facts,
    run,
    seen,
    stage_of,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
RRM = StageSpec(name="rrm", kind="serve", inputs={"model": "builtin:shapes-verifier"}, pending_timeout_seconds=300)
CASES_READ = {"cases": "builtin:shapes-editor", "editor": "builtin:shapes-editor"}
GRPO = StageSpec(name="grpo", kind="grpo", reward="rrm", inputs=CASES_READ)
AGAIN = GRPO.model_copy(update={"name": "again"})
LOADS = PodView("rrm-1", uid="r1", phase="Running", containers=(ContainerView("reward"),))
NO_NODE = replace(LOADS, phase="Pending", conditions=(Condition("PodScheduled", "False", "", "no room"),))
NO_IMAGE = replace(LOADS, phase="Pending", containers=(ContainerView("reward", waiting="ErrImagePull"),))


def served(*pods: PodView, ready: int = 0, wanted: int = 1, **changes: Any) -> StageFacts:
    """The service's Deployment with its pods; this run is among its owners."""
    deployment = JobView("rrm-12", "rrm-12", "serve", "serve", service=True, wanted=wanted, ready=ready)
    return StageFacts(ReleaseView("rrm-12", "lab", deployment, pods), **{"uid": "s1", "owned": True, **changes})


READY = served(replace(LOADS, conditions=(Condition("Ready", "True"),)), ready=1)
UP = known(RRM, R, reason=Reason.RUNNING, job_uid="s1")
ASKED = known(RRM, S, attempts=[], job_uid="", pending_since=NOW - 10)
NOT_MADE = ASKED.model_copy(update={"reason": Reason.REFUSED, "message": "no such kind"})
DOWN = fresh(RRM)
BAD = known(RRM, F, reason=Reason.INVALID, message="no such model")
WORKS = known(GRPO, R, reason=Reason.RUNNING)
RETRIES = known(GRPO, W, reason=Reason.RETRYING, attempts=[asked(9, 129)], failures=1, not_before=NOW - 1, job_uid="u1")
DONE = known(GRPO, D, reason=Reason.DONE)


def both(
    rrm: StageStatus | None, service: StageFacts, grpo: StageStatus | None, job: StageFacts, **changes: Any
) -> RunFacts:
    return run((RRM, rrm, service), (GRPO, grpo, job), **changes)


CASES = {
    "a service is not asked for before its stage is resolved": Case(
        both(DOWN, NOTHING, None, NOTHING), W, Reason.INPUTS_MISSING, (Resolve("grpo"),), "", "rrm"
    ),
    "a service is resolved before it is asked for": Case(
        both(None, NOTHING, fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (Resolve("rrm"),), "waits for rrm", "grpo"),
    ),
    "a service is asked for before the stage that it scores": Case(
        both(DOWN, NOTHING, fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (Serve("rrm"),), "waits for rrm", "grpo"),
    ),
    "a service that another run has is joined": Case(
        both(DOWN, replace(READY, owned=False), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (Serve("rrm"),), "waits for rrm", "grpo"),
    ),
    "a service that is being deleted is asked for again": Case(
        both(UP, replace(READY, leaving=True), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (Serve("rrm"),), "waits for rrm", "grpo"),
    ),
    "a service that loads its weights is waited for": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (), "waits for rrm: loading the weights", "grpo"),
    ),
    "a service that loads its weights is starting": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING), S, Reason.PODS_STARTING, (), "loading the weights", "rrm"
    ),
    "a service without a node says so": Case(
        both(ASKED, served(NO_NODE), fresh(GRPO), NOTHING), S, Reason.NO_NODE, (), "finds no node: no room", "rrm"
    ),
    "a service without its image says so": Case(
        both(ASKED, served(NO_IMAGE), fresh(GRPO), NOTHING), S, Reason.NO_IMAGE, (), "cannot get its image", "rrm"
    ),
    "a service that answers is running": Case(
        both(ASKED, READY, fresh(GRPO), NOTHING), R, Reason.RUNNING, (Launch("grpo", 1),), "", "rrm"
    ),
    "a stage starts when its service answers": Case(
        both(ASKED, READY, fresh(GRPO), NOTHING), S, Reason.PODS_STARTING, (Launch("grpo", 1),), "attempt 1", "grpo"
    ),
    "a service that does not start in time is given up": Case(
        both(known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE), fresh(GRPO), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (Leave("rrm"),), "finds no node: no room; it waited 300 s", "rrm"),
    ),
    "a service that the API server refuses keeps saying so": Case(
        both(NOT_MADE, NOTHING, fresh(GRPO), NOTHING), S, Reason.REFUSED, (Serve("rrm"),), "no such kind", "rrm"
    ),
    "a service that the API server refuses for too long fails": Case(
        both(NOT_MADE.model_copy(update={"pending_since": NOW - 301}), NOTHING, fresh(GRPO), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (), "no such kind; it waited 300 s", "rrm"),
    ),
    "a service that failed is given up though that was once forgotten": Case(
        both(BAD, served(NO_NODE), known(GRPO, F, reason=Reason.INVALID), NOTHING),
        *(F, Reason.INVALID, (Leave("rrm"),), "no such model", "rrm"),
    ),
    "a stage fails with the service that does not start in time": Case(
        both(known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE), fresh(GRPO), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (Leave("rrm"),), "rrm: pod rrm-1 finds no node", "grpo"),
    ),
    "a stage is not started for a service that failed": Case(
        both(BAD, NOTHING, fresh(GRPO), NOTHING), W, Reason.STAGE_FAILED, (), "rrm failed", "grpo"
    ),
    "a stage that comes again to a service that failed fails with its reason": Case(
        both(BAD, NOTHING, RETRIES, NOTHING), F, Reason.INVALID, (), "rrm: no such model", "grpo"
    ),
    "a service that runs for a running stage is kept": Case(
        both(UP, READY, WORKS, seen(RUNS)), R, Reason.RUNNING, (), "", "rrm"
    ),
    "a service that was taken from a running stage is applied again": Case(
        both(UP, NOTHING, WORKS, seen(RUNS)), S, Reason.PODS_STARTING, (Serve("rrm"),), "", "rrm"
    ),
    "a running stage goes on while its service comes again": Case(
        both(UP, served(NO_NODE), WORKS, seen(RUNS)), R, Reason.RUNNING, (), "", "grpo"
    ),
    "a service that does not come again fails the running stage": Case(
        both(known(RRM, S, pending_since=NOW - 301), served(NO_NODE), WORKS, seen(RUNS)),
        *(F, Reason.PENDING_TOO_LONG, (Remove("grpo", "u1"), Leave("rrm")), "rrm: pod rrm-1 finds no node", "grpo"),
    ),
    "a job of a stage whose service failed is removed": Case(
        both(
            known(RRM, F), NOTHING, known(GRPO, F, reason=Reason.PENDING_TOO_LONG, attempts=[asked(9, 143)]), seen(RUNS)
        ),
        *(F, Reason.PENDING_TOO_LONG, (Remove("grpo", "u1"),), "", "grpo"),
    ),
    "a service goes when the last stage that it scores is done": Case(
        both(UP, READY, DONE, NOTHING), D, Reason.DONE, (Leave("rrm"),), "", "rrm"
    ),
    "a service goes in the look in which that is seen": Case(
        both(UP, READY, WORKS, replace(NOTHING, result=RESULT, result_read=True)),
        *(D, Reason.DONE, (Leave("rrm"),), "", "rrm"),
    ),
    "a service goes when the stage that it scores failed": Case(
        both(UP, READY, known(GRPO, F, reason=Reason.EXIT_PERMANENT), ended(2)),
        *(D, Reason.DONE, (Leave("rrm"),), "", "rrm"),
    ),
    "a service of others is not left twice": Case(
        both(UP, replace(READY, owned=False), DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a service that already goes is not left again": Case(
        both(UP, replace(READY, leaving=True), DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a service that was never needed is not started": Case(
        both(None, NOTHING, DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a service waits while nothing that it scores can start": Case(
        run(
            (StageSpec(name="data", kind="curate"), known(), seen(RUNS)),
            (RRM, None, NOTHING),
            (GRPO.model_copy(update={"inputs": {**CASES_READ, "cases": "stage:data/cases"}}), None, NOTHING),
        ),
        *(W, Reason.INPUTS_MISSING, (), "starts with the stage that it scores", "rrm"),
    ),
    "a service is shared by the stages of a run": Case(
        run((RRM, ASKED, READY), (GRPO, fresh(GRPO), NOTHING), (AGAIN, fresh(AGAIN), NOTHING)),
        *(R, Reason.RUNNING, (Launch("grpo", 1), Launch("again", 1)), "", "rrm"),
    ),
    "a service stays until the last of its stages is done": Case(
        run((RRM, UP, READY), (GRPO, DONE, NOTHING), (AGAIN, known(AGAIN), seen(RUNS))),
        *(R, Reason.RUNNING, (), "", "rrm"),
    ),
    "a service that does not start in time fails every stage that waits for it, and is left once": Case(
        run(
            (RRM, known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE)),
            (GRPO, fresh(GRPO), NOTHING),
            (AGAIN, fresh(AGAIN), NOTHING),
        ),
        *(F, Reason.PENDING_TOO_LONG, (Leave("rrm"),), "rrm: pod rrm-1 finds no node", "again"),
    ),
    "a service scaled to no replica counts as ready": Case(
        both(ASKED, served(wanted=0), fresh(GRPO), NOTHING),
        *(S, Reason.PODS_STARTING, (Launch("grpo", 1),), "", "grpo"),
    ),
    "a stage that is suspended gives its service up": Case(
        both(UP, READY, WORKS, seen(RUNS), suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (Hold("grpo", True), Leave("rrm")), "", "rrm"),
    ),
    "a stage that is suspended before it started gives its service up": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING, suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (Leave("rrm"),), "", "rrm"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_seen_of_a_service_decides_what_follows(case: Case) -> None:
    case.check()


def test_a_service_given_up_while_suspended_is_asked_for_before_the_job_goes_on() -> None:
    facts = both(UP, READY, WORKS, seen(RUNS), suspend=True)
    plan = decide(facts)
    held = with_stage(facts, rrm=NOTHING, grpo=seen(suspended=True))
    plan = decide(next_facts(held, plan, now=NOW + 10))
    assert (plan.actions, plan.status.state) == ((), RunState.SUSPENDED)
    resumed = replace(held, spec=facts.spec.model_copy(update={"suspend": False}))
    plan = decide(next_facts(resumed, plan, now=NOW + 1000))
    assert plan.actions == (Serve("rrm"),)
    plan = decide(next_facts(with_stage(resumed, rrm=served(LOADS)), plan, now=NOW + 1100))
    assert (plan.actions, stage_of(plan, "grpo").reason) == ((), Reason.SERVICE_STARTING)
    back = with_stage(resumed, rrm=READY)
    plan = decide(next_facts(back, plan, now=NOW + 1200))
    assert plan.actions == (Hold("grpo", False),)
    plan = decide(next_facts(with_stage(back, grpo=seen(RUNS)), plan, now=NOW + 1210))
    stage = stage_of(plan, "grpo")
    assert (plan.actions, stage.state, len(stage.attempts), stage.failures) == ((), R, 1, 0)


def test_a_service_has_one_attempt_from_when_it_was_asked_for_to_its_end() -> None:
    plan = decide(both(ASKED, READY, fresh(GRPO), NOTHING))
    assert [item.started for item in stage_of(plan, "rrm").attempts] == [NOW - 10]
    last = stage_of(decide(both(UP, READY, DONE, NOTHING)), "rrm")
    assert (last.ended, last.attempts[0].ended, last.attempts[0].exit_code) == (NOW, NOW, 0)


@pytest.mark.parametrize(("reward", "does"), [("http://scorer:8000", (Launch("grpo", 1),)), ("rrm", (Serve("rrm"),))])
def test_addresses_need_no_service_of_the_run(reward: str, does: tuple[Action, ...]) -> None:
    stage = GRPO.model_copy(update={"reward": reward})
    assert decide(run((RRM, DOWN, NOTHING), (stage, fresh(stage), NOTHING))).actions == does


@pytest.mark.parametrize("now", [NOW, NOW + 400])
def test_the_time_that_a_service_may_wait_counts_from_when_it_was_asked_for(now: float) -> None:
    plan = decide(both(DOWN, NOTHING, fresh(GRPO), NOTHING))
    plan = decide(next_facts(both(DOWN, served(NO_NODE), fresh(GRPO), NOTHING), plan, now=now))
    assert stage_of(plan, "rrm").state is (S if now == NOW else F)


@pytest.mark.parametrize(
    ("grpo", "job"),
    [
        (WORKS, ended(129)),
        (RETRIES.model_copy(update={"not_before": NOW + 1}), NOTHING),
        (RETRIES, ended(129)),
        (RETRIES, ended(129, leaving=True)),
    ],
    ids=["failed", "backoff", "to be removed", "being removed"],
)
def test_a_retry_keeps_the_service(grpo: StageStatus, job: StageFacts) -> None:
    plan = decide(both(UP, READY, grpo, job))
    assert Leave("rrm") not in plan.actions and stage_of(plan, "rrm").state is R
    assert stage_of(plan, "grpo").reason is Reason.RETRYING
    assert Leave("rrm") in decide(both(UP, READY, grpo, job, suspend=True)).actions


def test_a_stage_in_a_queue_keeps_the_service() -> None:
    plan = decide(both(UP, READY, WORKS, seen(suspended=True, queue="research")))
    assert (plan.actions, stage_of(plan, "rrm").state, stage_of(plan, "grpo").reason) == ((), R, Reason.QUEUED)


def test_a_stage_that_succeeded_is_not_failed_over_its_service() -> None:
    plan = decide(both(known(RRM, S, pending_since=NOW - 301), served(NO_NODE), WORKS, seen(condition="Succeeded")))
    assert (plan.actions[0], stage_of(plan, "grpo").state) == (Load("grpo"), R)
