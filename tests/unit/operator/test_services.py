"""Reward services: created before the stage that they score, shared, kept and released."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, JobView, PodView, ReleaseView
from editr1.runs.spec import StageSpec
from editr1_operator.actions import (
    Action,
    DeleteJob,
    EnsureService,
    Launch,
    LoadResult,
    ReleaseService,
    Resolve,
    SetSuspended,
)
from editr1_operator.decide import decide
from editr1_operator.observed import ObservedRun, ObservedStage
from tests.unit.operator.conftest import (
    NOTHING,
    NOW,
    RESULT,
    RUNS,
    Case,
    ended,
    fresh,
    known,
    launched,
    next_observed,
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


def served(*pods: PodView, ready: int = 0, wanted: int = 1, **changes: Any) -> ObservedStage:
    """The service's Deployment with its pods; this run is among its owners."""
    deployment = JobView("rrm-12", "rrm-12", "serve", "serve", service=True, wanted=wanted, ready=ready)
    return ObservedStage(ReleaseView("rrm-12", "lab", deployment, pods), **{"uid": "s1", "owned": True, **changes})


READY = served(replace(LOADS, conditions=(Condition("Ready", "True"),)), ready=1)
UP = known(RRM, R, reason=Reason.RUNNING, job_uid="s1")
ASKED = known(RRM, S, attempts=[], job_uid="", pending_since=NOW - 10)
NOT_MADE = ASKED.model_copy(update={"reason": Reason.REFUSED, "message": "no such kind"})
DOWN = fresh(RRM)
BAD = known(RRM, F, reason=Reason.INVALID, message="no such model")
WORKS = known(GRPO, R, reason=Reason.RUNNING)
RETRIES = known(
    GRPO, W, reason=Reason.RETRYING, attempts=[launched(9, 129)], failures=1, not_before=NOW - 1, job_uid="u1"
)
DONE = known(GRPO, D, reason=Reason.DONE)


def both(
    rrm: StageStatus | None, service: ObservedStage, grpo: StageStatus | None, job: ObservedStage, **changes: Any
) -> ObservedRun:
    return run((RRM, rrm, service), (GRPO, grpo, job), **changes)


CASES = {
    "a service is not created before its stage is resolved": Case(
        both(DOWN, NOTHING, None, NOTHING), W, Reason.INPUTS_MISSING, (Resolve("grpo"),), "", "rrm"
    ),
    "a service is resolved before it is created": Case(
        both(None, NOTHING, fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (Resolve("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a service is created before the stage that it scores": Case(
        both(DOWN, NOTHING, fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a service of another run is joined": Case(
        both(DOWN, replace(READY, owned=False), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a service that is being deleted is created again": Case(
        both(UP, replace(READY, terminating=True), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a stage waits for a service that loads its weights": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING),
        *(S, Reason.SERVICE_STARTING, (), "waiting for rrm: loading the weights", "grpo"),
    ),
    "a service that loads its weights is starting": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING), S, Reason.PODS_STARTING, (), "loading the weights", "rrm"
    ),
    "a service without a node reports it": Case(
        both(ASKED, served(NO_NODE), fresh(GRPO), NOTHING), S, Reason.NO_NODE, (), "cannot be scheduled: no room", "rrm"
    ),
    "a service without its image reports it": Case(
        both(ASKED, served(NO_IMAGE), fresh(GRPO), NOTHING), S, Reason.NO_IMAGE, (), "cannot pull its image", "rrm"
    ),
    "a ready service is running": Case(
        both(ASKED, READY, fresh(GRPO), NOTHING), R, Reason.RUNNING, (Launch("grpo", 1),), "", "rrm"
    ),
    "a stage starts when its service is ready": Case(
        both(ASKED, READY, fresh(GRPO), NOTHING), S, Reason.PODS_STARTING, (Launch("grpo", 1),), "attempt 1", "grpo"
    ),
    "a service that is not ready in time is released": Case(
        both(known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE), fresh(GRPO), NOTHING),
        *(
            F,
            Reason.PENDING_TOO_LONG,
            (ReleaseService("rrm"),),
            "cannot be scheduled: no room; not ready after 300 s",
            "rrm",
        ),
    ),
    "a refused service keeps its message": Case(
        both(NOT_MADE, NOTHING, fresh(GRPO), NOTHING), S, Reason.REFUSED, (EnsureService("rrm"),), "no such kind", "rrm"
    ),
    "a service that is refused for too long fails": Case(
        both(NOT_MADE.model_copy(update={"pending_since": NOW - 301}), NOTHING, fresh(GRPO), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (), "no such kind; not ready after 300 s", "rrm"),
    ),
    "a failed service is released even if an earlier operator did not": Case(
        both(BAD, served(NO_NODE), known(GRPO, F, reason=Reason.INVALID), NOTHING),
        *(F, Reason.INVALID, (ReleaseService("rrm"),), "no such model", "rrm"),
    ),
    "a stage fails with a service that is not ready in time": Case(
        both(known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE), fresh(GRPO), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (ReleaseService("rrm"),), "rrm: pod rrm-1 cannot be scheduled", "grpo"),
    ),
    "a stage of a failed service is not started": Case(
        both(BAD, NOTHING, fresh(GRPO), NOTHING), W, Reason.STAGE_FAILED, (), "not started because rrm failed", "grpo"
    ),
    "a retried stage of a failed service fails with its reason": Case(
        both(BAD, NOTHING, RETRIES, NOTHING), F, Reason.INVALID, (), "rrm: no such model", "grpo"
    ),
    "the service of a running stage is kept": Case(
        both(UP, READY, WORKS, seen(RUNS)), R, Reason.RUNNING, (), "", "rrm"
    ),
    "a deleted service of a running stage is created again": Case(
        both(UP, NOTHING, WORKS, seen(RUNS)), S, Reason.PODS_STARTING, (EnsureService("rrm"),), "", "rrm"
    ),
    "a running stage continues while its service is created again": Case(
        both(UP, served(NO_NODE), WORKS, seen(RUNS)), R, Reason.RUNNING, (), "", "grpo"
    ),
    "a running stage fails with a service that is not ready again in time": Case(
        both(known(RRM, S, pending_since=NOW - 301), served(NO_NODE), WORKS, seen(RUNS)),
        *(
            F,
            Reason.PENDING_TOO_LONG,
            (DeleteJob("grpo", "u1"), ReleaseService("rrm")),
            "rrm: pod rrm-1 cannot be scheduled",
            "grpo",
        ),
    ),
    "the job of a stage whose service failed is deleted": Case(
        both(
            known(RRM, F),
            NOTHING,
            known(GRPO, F, reason=Reason.PENDING_TOO_LONG, attempts=[launched(9, 143)]),
            seen(RUNS),
        ),
        *(F, Reason.PENDING_TOO_LONG, (DeleteJob("grpo", "u1"),), "", "grpo"),
    ),
    "a service is released when the last stage that it scores is done": Case(
        both(UP, READY, DONE, NOTHING), D, Reason.DONE, (ReleaseService("rrm"),), "", "rrm"
    ),
    "a service is released in the same plan that completes its last stage": Case(
        both(UP, READY, WORKS, replace(NOTHING, result=RESULT, result_read=True)),
        *(D, Reason.DONE, (ReleaseService("rrm"),), "", "rrm"),
    ),
    "a service is released when the stage that it scores failed": Case(
        both(UP, READY, known(GRPO, F, reason=Reason.EXIT_PERMANENT), ended(2)),
        *(D, Reason.DONE, (ReleaseService("rrm"),), "", "rrm"),
    ),
    "a service that this run does not own is not released": Case(
        both(UP, replace(READY, owned=False), DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a terminating service is not released again": Case(
        both(UP, replace(READY, terminating=True), DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a service that was never needed is not created": Case(
        both(None, NOTHING, DONE, NOTHING), D, Reason.DONE, (), "", "rrm"
    ),
    "a service waits while no stage that it scores can start": Case(
        run(
            (StageSpec(name="data", kind="curate"), known(), seen(RUNS)),
            (RRM, None, NOTHING),
            (GRPO.model_copy(update={"inputs": {**CASES_READ, "cases": "stage:data/cases"}}), None, NOTHING),
        ),
        *(W, Reason.INPUTS_MISSING, (), "starts together with the stage that it scores", "rrm"),
    ),
    "a service is shared by the stages of a run": Case(
        run((RRM, ASKED, READY), (GRPO, fresh(GRPO), NOTHING), (AGAIN, fresh(AGAIN), NOTHING)),
        *(R, Reason.RUNNING, (Launch("grpo", 1), Launch("again", 1)), "", "rrm"),
    ),
    "a service is kept until the last of its stages is done": Case(
        run((RRM, UP, READY), (GRPO, DONE, NOTHING), (AGAIN, known(AGAIN), seen(RUNS))),
        *(R, Reason.RUNNING, (), "", "rrm"),
    ),
    "a service that is not ready in time fails every stage that waits for it and is released once": Case(
        run(
            (RRM, known(RRM, S, attempts=[], pending_since=NOW - 301), served(NO_NODE)),
            (GRPO, fresh(GRPO), NOTHING),
            (AGAIN, fresh(AGAIN), NOTHING),
        ),
        *(F, Reason.PENDING_TOO_LONG, (ReleaseService("rrm"),), "rrm: pod rrm-1 cannot be scheduled", "again"),
    ),
    "a service scaled to zero replicas counts as ready": Case(
        both(ASKED, served(wanted=0), fresh(GRPO), NOTHING),
        *(S, Reason.PODS_STARTING, (Launch("grpo", 1),), "", "grpo"),
    ),
    "a suspended stage releases its service": Case(
        both(UP, READY, WORKS, seen(RUNS), suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (SetSuspended("grpo", True), ReleaseService("rrm")), "", "rrm"),
    ),
    "a stage suspended before its start releases its service": Case(
        both(ASKED, served(LOADS), fresh(GRPO), NOTHING, suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (ReleaseService("rrm"),), "", "rrm"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_decision_for_a_service(case: Case) -> None:
    case.check()


def test_service_released_by_suspend_is_ready_before_the_job_resumes() -> None:
    observed = both(UP, READY, WORKS, seen(RUNS), suspend=True)
    plan = decide(observed)
    held = with_stage(observed, rrm=NOTHING, grpo=seen(suspended=True))
    plan = decide(next_observed(held, plan, now=NOW + 10))
    assert (plan.actions, plan.status.state) == ((), RunState.SUSPENDED)
    resumed = replace(held, spec=observed.spec.model_copy(update={"suspend": False}))
    plan = decide(next_observed(resumed, plan, now=NOW + 1000))
    assert plan.actions == (EnsureService("rrm"),)
    plan = decide(next_observed(with_stage(resumed, rrm=served(LOADS)), plan, now=NOW + 1100))
    assert (plan.actions, stage_of(plan, "grpo").reason) == ((), Reason.SERVICE_STARTING)
    back = with_stage(resumed, rrm=READY)
    plan = decide(next_observed(back, plan, now=NOW + 1200))
    assert plan.actions == (SetSuspended("grpo", False),)
    plan = decide(next_observed(with_stage(back, grpo=seen(RUNS)), plan, now=NOW + 1210))
    stage = stage_of(plan, "grpo")
    assert (plan.actions, stage.state, len(stage.attempts), stage.failures) == ((), R, 1, 0)


def test_service_has_one_attempt_from_its_creation_to_its_release() -> None:
    plan = decide(both(ASKED, READY, fresh(GRPO), NOTHING))
    assert [item.started for item in stage_of(plan, "rrm").attempts] == [NOW - 10]
    last = stage_of(decide(both(UP, READY, DONE, NOTHING)), "rrm")
    assert (last.ended, last.attempts[0].ended, last.attempts[0].exit_code) == (NOW, NOW, 0)


@pytest.mark.parametrize(
    ("reward", "does"), [("http://scorer:8000", (Launch("grpo", 1),)), ("rrm", (EnsureService("rrm"),))]
)
def test_reward_addresses_need_no_service_of_the_run(reward: str, does: tuple[Action, ...]) -> None:
    stage = GRPO.model_copy(update={"reward": reward})
    assert decide(run((RRM, DOWN, NOTHING), (stage, fresh(stage), NOTHING))).actions == does


@pytest.mark.parametrize("now", [NOW, NOW + 400])
def test_pending_time_of_a_service_starts_with_its_creation(now: float) -> None:
    plan = decide(both(DOWN, NOTHING, fresh(GRPO), NOTHING))
    plan = decide(next_observed(both(DOWN, served(NO_NODE), fresh(GRPO), NOTHING), plan, now=now))
    assert stage_of(plan, "rrm").state is (S if now == NOW else F)


@pytest.mark.parametrize(
    ("grpo", "job"),
    [
        (WORKS, ended(129)),
        (RETRIES.model_copy(update={"not_before": NOW + 1}), NOTHING),
        (RETRIES, ended(129)),
        (RETRIES, ended(129, terminating=True)),
    ],
    ids=["failed", "backoff", "to be deleted", "being deleted"],
)
def test_retry_keeps_the_service(grpo: StageStatus, job: ObservedStage) -> None:
    plan = decide(both(UP, READY, grpo, job))
    assert ReleaseService("rrm") not in plan.actions and stage_of(plan, "rrm").state is R
    assert stage_of(plan, "grpo").reason is Reason.RETRYING
    assert ReleaseService("rrm") in decide(both(UP, READY, grpo, job, suspend=True)).actions


def test_queued_stage_keeps_the_service() -> None:
    plan = decide(both(UP, READY, WORKS, seen(suspended=True, queue="research")))
    assert (plan.actions, stage_of(plan, "rrm").state, stage_of(plan, "grpo").reason) == ((), R, Reason.QUEUED)


def test_stage_that_succeeded_does_not_fail_with_its_service() -> None:
    plan = decide(both(known(RRM, S, pending_since=NOW - 301), served(NO_NODE), WORKS, seen(condition="Succeeded")))
    assert (plan.actions[0], stage_of(plan, "grpo").state) == (LoadResult("grpo"), R)
