"""Decisions for reward services: creation, sharing, failure and release."""

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
    NO_JOB,
    NOW,
    RESULT,
    RUNNING_POD,
    Case,
    failed_job,
    launched,
    launched_status,
    next_observed,
    observed_job,
    run,
    stage_of,
    unlaunched_status,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
RRM = StageSpec(name="rrm", kind="serve", inputs={"model": "builtin:shapes-verifier"}, pending_timeout_seconds=300)
GRPO_INPUTS = {"cases": "builtin:shapes-editor", "editor": "builtin:shapes-editor"}
GRPO = StageSpec(name="grpo", kind="grpo", reward="rrm", inputs=GRPO_INPUTS)
SECOND_GRPO = GRPO.model_copy(update={"name": "again"})
LOADING_POD = PodView("rrm-1", uid="r1", phase="Running", containers=(ContainerView("reward"),))
NO_NODE = replace(LOADING_POD, phase="Pending", conditions=(Condition("PodScheduled", "False", "", "no room"),))
NO_IMAGE = replace(LOADING_POD, phase="Pending", containers=(ContainerView("reward", waiting="ErrImagePull"),))


def observed_service(*pods: PodView, ready: int = 0, wanted: int = 1, **changes: Any) -> ObservedStage:
    """Return a service whose Deployment has these pods and is owned by this run."""
    deployment = JobView("rrm-12", "rrm-12", "serve", "serve", service=True, wanted=wanted, ready=ready)
    return ObservedStage(ReleaseView("rrm-12", "lab", deployment, pods), **{"uid": "s1", "owned": True, **changes})


READY_SERVICE = observed_service(replace(LOADING_POD, conditions=(Condition("Ready", "True"),)), ready=1)
RUNNING_RRM = launched_status(RRM, R, reason=Reason.RUNNING, job_uid="s1")
STARTING_RRM = launched_status(RRM, S, attempts=[], job_uid="", pending_since=NOW - 10)
REJECTED_RRM = STARTING_RRM.model_copy(update={"reason": Reason.REFUSED, "message": "no such kind"})
UNLAUNCHED_RRM = unlaunched_status(RRM)
FAILED_RRM = launched_status(RRM, F, reason=Reason.INVALID, message="no such model")
RUNNING_GRPO = launched_status(GRPO, R, reason=Reason.RUNNING)
RETRYING_GRPO = launched_status(
    GRPO, W, reason=Reason.RETRYING, attempts=[launched(9, 129)], failures=1, not_before=NOW - 1, job_uid="u1"
)
DONE_GRPO = launched_status(GRPO, D, reason=Reason.DONE)


def service_and_stage(
    rrm: StageStatus | None, service: ObservedStage, grpo: StageStatus | None, job: ObservedStage, **changes: Any
) -> ObservedRun:
    return run((RRM, rrm, service), (GRPO, grpo, job), **changes)


CASES = {
    "a service is not created before its stage is resolved": Case(
        service_and_stage(UNLAUNCHED_RRM, NO_JOB, None, NO_JOB), W, Reason.INPUTS_MISSING, (Resolve("grpo"),), "", "rrm"
    ),
    "a service is resolved before it is created": Case(
        service_and_stage(None, NO_JOB, unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.SERVICE_STARTING, (Resolve("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a service is created before the stage that it scores": Case(
        service_and_stage(UNLAUNCHED_RRM, NO_JOB, unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a run becomes an owner of a service that another run created": Case(
        service_and_stage(UNLAUNCHED_RRM, replace(READY_SERVICE, owned=False), unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a service that is being deleted is created again": Case(
        service_and_stage(RUNNING_RRM, replace(READY_SERVICE, terminating=True), unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.SERVICE_STARTING, (EnsureService("rrm"),), "waiting for rrm", "grpo"),
    ),
    "a stage waits for a service that loads its weights": Case(
        service_and_stage(STARTING_RRM, observed_service(LOADING_POD), unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.SERVICE_STARTING, (), "waiting for rrm: loading the weights", "grpo"),
    ),
    "a service that loads its weights is starting": Case(
        service_and_stage(STARTING_RRM, observed_service(LOADING_POD), unlaunched_status(GRPO), NO_JOB),
        S,
        Reason.PODS_STARTING,
        (),
        "loading the weights",
        "rrm",
    ),
    "a service without a node reports it": Case(
        service_and_stage(STARTING_RRM, observed_service(NO_NODE), unlaunched_status(GRPO), NO_JOB),
        S,
        Reason.NO_NODE,
        (),
        "cannot be scheduled: no room",
        "rrm",
    ),
    "a service without its image reports it": Case(
        service_and_stage(STARTING_RRM, observed_service(NO_IMAGE), unlaunched_status(GRPO), NO_JOB),
        S,
        Reason.NO_IMAGE,
        (),
        "cannot pull its image",
        "rrm",
    ),
    "a ready service is running": Case(
        service_and_stage(STARTING_RRM, READY_SERVICE, unlaunched_status(GRPO), NO_JOB),
        R,
        Reason.RUNNING,
        (Launch("grpo", 1),),
        "",
        "rrm",
    ),
    "a stage starts when its service is ready": Case(
        service_and_stage(STARTING_RRM, READY_SERVICE, unlaunched_status(GRPO), NO_JOB),
        S,
        Reason.PODS_STARTING,
        (Launch("grpo", 1),),
        "attempt 1",
        "grpo",
    ),
    "a service that is not ready in time is released": Case(
        service_and_stage(
            launched_status(RRM, S, attempts=[], pending_since=NOW - 301),
            observed_service(NO_NODE),
            unlaunched_status(GRPO),
            NO_JOB,
        ),
        *(
            F,
            Reason.PENDING_TOO_LONG,
            (ReleaseService("rrm"),),
            "cannot be scheduled: no room; the service was not ready within pending_timeout_seconds (300 s)",
            "rrm",
        ),
    ),
    "a rejected service keeps its message": Case(
        service_and_stage(REJECTED_RRM, NO_JOB, unlaunched_status(GRPO), NO_JOB),
        S,
        Reason.REFUSED,
        (EnsureService("rrm"),),
        "no such kind",
        "rrm",
    ),
    "a service that is rejected for too long fails": Case(
        service_and_stage(
            REJECTED_RRM.model_copy(update={"pending_since": NOW - 301}), NO_JOB, unlaunched_status(GRPO), NO_JOB
        ),
        *(
            F,
            Reason.PENDING_TOO_LONG,
            (),
            "no such kind; the service was not ready within pending_timeout_seconds (300 s)",
            "rrm",
        ),
    ),
    "a failed service is released even if an earlier operator did not": Case(
        service_and_stage(
            FAILED_RRM, observed_service(NO_NODE), launched_status(GRPO, F, reason=Reason.INVALID), NO_JOB
        ),
        *(F, Reason.INVALID, (ReleaseService("rrm"),), "no such model", "rrm"),
    ),
    "a stage fails with a service that is not ready in time": Case(
        service_and_stage(
            launched_status(RRM, S, attempts=[], pending_since=NOW - 301),
            observed_service(NO_NODE),
            unlaunched_status(GRPO),
            NO_JOB,
        ),
        *(F, Reason.PENDING_TOO_LONG, (ReleaseService("rrm"),), "rrm: pod rrm-1 cannot be scheduled", "grpo"),
    ),
    "a stage of a failed service is not started": Case(
        service_and_stage(FAILED_RRM, NO_JOB, unlaunched_status(GRPO), NO_JOB),
        W,
        Reason.STAGE_FAILED,
        (),
        "not started because rrm failed",
        "grpo",
    ),
    "a retried stage of a failed service fails with its reason": Case(
        service_and_stage(FAILED_RRM, NO_JOB, RETRYING_GRPO, NO_JOB),
        F,
        Reason.INVALID,
        (),
        "rrm: no such model",
        "grpo",
    ),
    "the service of a running stage is kept": Case(
        service_and_stage(RUNNING_RRM, READY_SERVICE, RUNNING_GRPO, observed_job(RUNNING_POD)),
        R,
        Reason.RUNNING,
        (),
        "",
        "rrm",
    ),
    "a deleted service of a running stage is created again": Case(
        service_and_stage(RUNNING_RRM, NO_JOB, RUNNING_GRPO, observed_job(RUNNING_POD)),
        S,
        Reason.PODS_STARTING,
        (EnsureService("rrm"),),
        "",
        "rrm",
    ),
    "a running stage continues while its service is created again": Case(
        service_and_stage(RUNNING_RRM, observed_service(NO_NODE), RUNNING_GRPO, observed_job(RUNNING_POD)),
        R,
        Reason.RUNNING,
        (),
        "",
        "grpo",
    ),
    "a running stage fails with a service that is not ready again in time": Case(
        service_and_stage(
            launched_status(RRM, S, pending_since=NOW - 301),
            observed_service(NO_NODE),
            RUNNING_GRPO,
            observed_job(RUNNING_POD),
        ),
        *(
            F,
            Reason.PENDING_TOO_LONG,
            (DeleteJob("grpo", "u1"), ReleaseService("rrm")),
            "rrm: pod rrm-1 cannot be scheduled",
            "grpo",
        ),
    ),
    "the job of a stage whose service failed is deleted": Case(
        service_and_stage(
            launched_status(RRM, F),
            NO_JOB,
            launched_status(GRPO, F, reason=Reason.PENDING_TOO_LONG, attempts=[launched(9, 143)]),
            observed_job(RUNNING_POD),
        ),
        *(F, Reason.PENDING_TOO_LONG, (DeleteJob("grpo", "u1"),), "", "grpo"),
    ),
    "a service is released when the last stage that it scores is done": Case(
        service_and_stage(RUNNING_RRM, READY_SERVICE, DONE_GRPO, NO_JOB),
        D,
        Reason.DONE,
        (ReleaseService("rrm"),),
        "",
        "rrm",
    ),
    "a service is released in the same plan that completes its last stage": Case(
        service_and_stage(RUNNING_RRM, READY_SERVICE, RUNNING_GRPO, replace(NO_JOB, result=RESULT, result_read=True)),
        *(D, Reason.DONE, (ReleaseService("rrm"),), "", "rrm"),
    ),
    "a service is released when the stage that it scores failed": Case(
        service_and_stage(
            RUNNING_RRM, READY_SERVICE, launched_status(GRPO, F, reason=Reason.EXIT_PERMANENT), failed_job(2)
        ),
        *(D, Reason.DONE, (ReleaseService("rrm"),), "", "rrm"),
    ),
    "a service that this run does not own is not released": Case(
        service_and_stage(RUNNING_RRM, replace(READY_SERVICE, owned=False), DONE_GRPO, NO_JOB),
        D,
        Reason.DONE,
        (),
        "",
        "rrm",
    ),
    "a terminating service is not released again": Case(
        service_and_stage(RUNNING_RRM, replace(READY_SERVICE, terminating=True), DONE_GRPO, NO_JOB),
        D,
        Reason.DONE,
        (),
        "",
        "rrm",
    ),
    "a service that was never needed is not created": Case(
        service_and_stage(None, NO_JOB, DONE_GRPO, NO_JOB), D, Reason.DONE, (), "", "rrm"
    ),
    "a service waits while no stage that it scores can start": Case(
        run(
            (StageSpec(name="data", kind="curate"), launched_status(), observed_job(RUNNING_POD)),
            (RRM, None, NO_JOB),
            (GRPO.model_copy(update={"inputs": {**GRPO_INPUTS, "cases": "stage:data/cases"}}), None, NO_JOB),
        ),
        *(W, Reason.INPUTS_MISSING, (), "starts together with the next stage that uses it", "rrm"),
    ),
    "a service is shared by the stages of a run": Case(
        run(
            (RRM, STARTING_RRM, READY_SERVICE),
            (GRPO, unlaunched_status(GRPO), NO_JOB),
            (SECOND_GRPO, unlaunched_status(SECOND_GRPO), NO_JOB),
        ),
        *(R, Reason.RUNNING, (Launch("grpo", 1), Launch("again", 1)), "", "rrm"),
    ),
    "a service is kept until the last of its stages is done": Case(
        run(
            (RRM, RUNNING_RRM, READY_SERVICE),
            (GRPO, DONE_GRPO, NO_JOB),
            (SECOND_GRPO, launched_status(SECOND_GRPO), observed_job(RUNNING_POD)),
        ),
        *(R, Reason.RUNNING, (), "", "rrm"),
    ),
    "a service that is not ready in time fails every stage that waits for it and is released once": Case(
        run(
            (RRM, launched_status(RRM, S, attempts=[], pending_since=NOW - 301), observed_service(NO_NODE)),
            (GRPO, unlaunched_status(GRPO), NO_JOB),
            (SECOND_GRPO, unlaunched_status(SECOND_GRPO), NO_JOB),
        ),
        *(F, Reason.PENDING_TOO_LONG, (ReleaseService("rrm"),), "rrm: pod rrm-1 cannot be scheduled", "again"),
    ),
    "a service scaled to zero replicas counts as ready": Case(
        service_and_stage(STARTING_RRM, observed_service(wanted=0), unlaunched_status(GRPO), NO_JOB),
        *(S, Reason.PODS_STARTING, (Launch("grpo", 1),), "", "grpo"),
    ),
    "a suspended stage releases its service": Case(
        service_and_stage(RUNNING_RRM, READY_SERVICE, RUNNING_GRPO, observed_job(RUNNING_POD), suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (SetSuspended("grpo", True), ReleaseService("rrm")), "", "rrm"),
    ),
    "a stage suspended before its start releases its service": Case(
        service_and_stage(STARTING_RRM, observed_service(LOADING_POD), unlaunched_status(GRPO), NO_JOB, suspend=True),
        *(RunState.SUSPENDED, Reason.SUSPENDED, (ReleaseService("rrm"),), "", "rrm"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_service_state_leads_to_the_expected_decision(case: Case) -> None:
    case.check()


def test_service_released_by_suspend_is_ready_before_the_job_resumes() -> None:
    observed = service_and_stage(RUNNING_RRM, READY_SERVICE, RUNNING_GRPO, observed_job(RUNNING_POD), suspend=True)
    plan = decide(observed)
    suspended = with_stage(observed, rrm=NO_JOB, grpo=observed_job(suspended=True))
    plan = decide(next_observed(suspended, plan, now=NOW + 10))
    assert (plan.actions, plan.status.state) == ((), RunState.SUSPENDED)
    resumed = replace(suspended, spec=observed.spec.model_copy(update={"suspend": False}))
    plan = decide(next_observed(resumed, plan, now=NOW + 1000))
    assert plan.actions == (EnsureService("rrm"),)
    plan = decide(next_observed(with_stage(resumed, rrm=observed_service(LOADING_POD)), plan, now=NOW + 1100))
    assert (plan.actions, stage_of(plan, "grpo").reason) == ((), Reason.SERVICE_STARTING)
    back = with_stage(resumed, rrm=READY_SERVICE)
    plan = decide(next_observed(back, plan, now=NOW + 1200))
    assert plan.actions == (SetSuspended("grpo", False),)
    plan = decide(next_observed(with_stage(back, grpo=observed_job(RUNNING_POD)), plan, now=NOW + 1210))
    stage = stage_of(plan, "grpo")
    assert (plan.actions, stage.state, len(stage.attempts), stage.failures) == ((), R, 1, 0)


def test_service_has_one_attempt_from_its_creation_to_its_release() -> None:
    plan = decide(service_and_stage(STARTING_RRM, READY_SERVICE, unlaunched_status(GRPO), NO_JOB))
    assert [item.started for item in stage_of(plan, "rrm").attempts] == [NOW - 10]
    last = stage_of(decide(service_and_stage(RUNNING_RRM, READY_SERVICE, DONE_GRPO, NO_JOB)), "rrm")
    assert (last.ended, last.attempts[0].ended, last.attempts[0].exit_code) == (NOW, NOW, 0)


@pytest.mark.parametrize(
    ("reward", "actions"), [("http://scorer:8000", (Launch("grpo", 1),)), ("rrm", (EnsureService("rrm"),))]
)
def test_stage_with_reward_addresses_starts_without_a_service(reward: str, actions: tuple[Action, ...]) -> None:
    stage = GRPO.model_copy(update={"reward": reward})
    assert decide(run((RRM, UNLAUNCHED_RRM, NO_JOB), (stage, unlaunched_status(stage), NO_JOB))).actions == actions


@pytest.mark.parametrize("now", [NOW, NOW + 400])
def test_pending_time_of_a_service_starts_with_its_creation(now: float) -> None:
    plan = decide(service_and_stage(UNLAUNCHED_RRM, NO_JOB, unlaunched_status(GRPO), NO_JOB))
    plan = decide(
        next_observed(
            service_and_stage(UNLAUNCHED_RRM, observed_service(NO_NODE), unlaunched_status(GRPO), NO_JOB), plan, now=now
        )
    )
    assert stage_of(plan, "rrm").state is (S if now == NOW else F)


@pytest.mark.parametrize(
    ("grpo", "job"),
    [
        (RUNNING_GRPO, failed_job(129)),
        (RETRYING_GRPO.model_copy(update={"not_before": NOW + 1}), NO_JOB),
        (RETRYING_GRPO, failed_job(129)),
        (RETRYING_GRPO, failed_job(129, terminating=True)),
    ],
    ids=["failed", "backoff", "to be deleted", "being deleted"],
)
def test_retry_keeps_the_service(grpo: StageStatus, job: ObservedStage) -> None:
    plan = decide(service_and_stage(RUNNING_RRM, READY_SERVICE, grpo, job))
    assert ReleaseService("rrm") not in plan.actions and stage_of(plan, "rrm").state is R
    assert stage_of(plan, "grpo").reason is Reason.RETRYING
    assert (
        ReleaseService("rrm") in decide(service_and_stage(RUNNING_RRM, READY_SERVICE, grpo, job, suspend=True)).actions
    )


def test_queued_stage_keeps_the_service() -> None:
    plan = decide(
        service_and_stage(RUNNING_RRM, READY_SERVICE, RUNNING_GRPO, observed_job(suspended=True, queue="research"))
    )
    assert (plan.actions, stage_of(plan, "rrm").state, stage_of(plan, "grpo").reason) == ((), R, Reason.QUEUED)


def test_stage_that_succeeded_does_not_fail_with_its_service() -> None:
    plan = decide(
        service_and_stage(
            launched_status(RRM, S, pending_since=NOW - 301),
            observed_service(NO_NODE),
            RUNNING_GRPO,
            observed_job(condition="Succeeded"),
        )
    )
    assert (plan.actions[0], stage_of(plan, "grpo").state) == (LoadResult("grpo"), R)
