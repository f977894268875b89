"""What follows for a stage from what is seen of it: the rows of the table of ``decide``, and the order of stages."""

from dataclasses import replace

import pytest

from editr1.errors import ExitCode, worth_a_retry
from editr1.launch.kubernetes.run_status import Reason, RunState, StageStatus
from editr1.launch.kubernetes.views import Condition, ContainerView, EventView, PodView
from editr1_operator.actions import Drop, Launch, Load, Remove, Resolve
from editr1_operator.decide import decide
from editr1_operator.facts import StageFacts
from tests.unit.operator.conftest import (
    NOTHING,
    NOW,
    POD,
    RESULT,
    RUNS,
    UNREAD,
    Case,
    asked,
    backoff,
    curate,
    ended,
    fresh,
    known,
    next_facts,
    one,
    run,
    seen,
    stage_of,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
OTHER = replace(RUNS, uid="p2")
PARENT = known("data", D, reason=Reason.DONE)
CHILD = curate("more", kind="sft", inputs={"rows": "stage:data/rows", "model": "builtin:shapes-verifier"})
STARTS = known(state=S, pending_since=NOW - 10)


def pulling(pod: PodView = POD) -> PodView:
    return replace(pod, containers=(replace(pod.containers[0], waiting="ImagePullBackOff"),))


def event(message: str, reason: str = "FailedCreatePod", of: str = "lab-data") -> tuple[EventView]:
    return (EventView(of, reason, message, warning=True),)


NO_NODE = replace(POD, conditions=(Condition("PodScheduled", "False", "", "1 Insufficient nvidia.com/gpu."),))
PENDING: dict[str, tuple[StageFacts, Reason, str]] = {
    "no node": (seen(NO_NODE), Reason.NO_NODE, "not enough nvidia.com/gpu is free"),
    "no image": (seen(pulling()), Reason.NO_IMAGE, "cannot get its image editr1/curate:9"),
    "no quota": (seen(events=event("exceeded quota: team")), Reason.NO_QUOTA, "quota is full: team"),
    "pods refused": (seen(events=event("violates PodSecurity")), Reason.PODS_REFUSED, "Pod Security refuses"),
    "no volume": (
        seen(POD, events=event("no configmap", "FailedMount", POD.name)),
        Reason.CANNOT_START,
        "waits for a volume: no configmap",
    ),
    "no pod yet": (seen(), Reason.PODS_STARTING, "waiting for its pods"),
}

CASES = {
    "a stage never looked at is resolved": Case(one(None, NOTHING), W, None, (Resolve("data"),)),
    "a stage whose input is not there waits": Case(
        run((curate(), known(), seen(RUNS)), (CHILD, None, NOTHING)),
        *(W, Reason.INPUTS_MISSING, (), "waits for data", "more"),
    ),
    "a stage goes on when its input is there": Case(
        run((curate(), PARENT, NOTHING), (CHILD, None, NOTHING)), W, None, (Resolve("more"),), "", "more"
    ),
    "a result that stands is taken and nothing is started": Case(
        one(fresh(), replace(NOTHING, result=RESULT, result_read=True)), D, Reason.STANDS, (), "already done"
    ),
    "a stage without a result is started": Case(
        one(fresh(), replace(NOTHING, result_read=True)), S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"
    ),
    "a start of which nothing was seen is asked for again": Case(
        one(known(state=S, job_uid="", pending_since=NOW - 100), NOTHING),
        *(S, Reason.PODS_STARTING, (Launch("data", 1),), "attempt 1"),
    ),
    "a start that the API server refuses keeps saying so": Case(
        one(known(state=S, job_uid="", reason=Reason.REFUSED, message="no such kind"), NOTHING),
        *(S, Reason.REFUSED, (Launch("data", 1),), "no such kind"),
    ),
    "a start that is refused for too long fails": Case(
        one(known(state=S, job_uid="", message="no such kind", pending_since=NOW - 601), NOTHING),
        *(F, Reason.PENDING_TOO_LONG, (), "no such kind; it waited 600 s"),
    ),
    "a job that vanished may have been done: its result is read": Case(one(known(), UNREAD), R, None, (Load("data"),)),
    "a job that somebody deletes after it was done is done": Case(
        one(known(), seen(RUNS, leaving=True, result=RESULT, result_read=True)), D, Reason.DONE
    ),
    "a job that vanished and was done is done": Case(
        one(known(), replace(NOTHING, result=RESULT, result_read=True)), D, Reason.DONE
    ),
    "a job that failed may have committed first: its result is read": Case(
        one(known(), ended(137, result_read=False)), R, None, (Load("data"),)
    ),
    "a job that failed after it committed its result is done": Case(
        one(known(), ended(137, result=RESULT)), D, Reason.DONE
    ),
    "a job that vanished without a result counts as killed": Case(
        one(known(), replace(NOTHING, result_read=True)),
        *(W, Reason.RETRYING, (), "exit code 137 is worth a retry: the job was removed by somebody else"),
    ),
    "a job that somebody deletes counts as killed while it still leaves": Case(
        one(known(), seen(RUNS, leaving=True, result_read=True)), W, Reason.RETRYING, (), "removed by somebody else"
    ),
    "a job that vanished after the last retry fails the stage": Case(
        one(known(failures=2), replace(NOTHING, result_read=True)), F, Reason.RETRIES_SPENT, (), "2 retries are used up"
    ),
    "the job of an earlier attempt is removed": Case(
        one(known(attempts=[asked(100, 129), asked(5)], job_uid=""), seen(RUNS)),
        *(W, None, (Remove("data", "u1"),)),
    ),
    "the job that failed is removed before the next attempt": Case(
        one(backoff(1), ended(129)), W, Reason.RETRYING, (Remove("data", "u1"),), "exit code 129"
    ),
    "the next attempt waits for the backoff": Case(one(backoff(1), NOTHING), W, Reason.RETRYING, (), "exit code 129"),
    "the next attempt starts after the backoff": Case(
        one(backoff(-0.1), NOTHING), S, Reason.PODS_STARTING, (Launch("data", 2),), "attempt 2"
    ),
    "the next attempt waits until the last one's job is gone": Case(
        one(backoff(-1), seen(leaving=True)), W, Reason.RETRYING, (), "exit code 129"
    ),
    "a job that runs is running": Case(one(STARTS, seen(RUNS)), R, Reason.RUNNING),
    "a job that runs but is not ready says why": Case(
        one(known(), seen(replace(RUNS, conditions=()), events=event("503", "Unhealthy", POD.name))),
        *(R, Reason.PODS_STARTING, (), "is not ready: 503"),
    ),
    "a job that does not start in time is removed": Case(
        one(known(state=S, pending_since=NOW - 601), seen(NO_NODE)),
        *(F, Reason.PENDING_TOO_LONG, (Remove("data", "u1"),), "finds no node"),
    ),
    "a job that waits no longer than it may is left": Case(
        one(known(state=S, pending_since=NOW - 600), seen(NO_NODE)), S, Reason.NO_NODE
    ),
    "a pod under its old name with a new identity is a failure and the job goes on": Case(
        one(known(pods={POD.name: "p1"}), seen(OTHER)), R, Reason.RUNNING
    ),
    "a pod lost within the retries lets the job go on": Case(
        one(known(pods={POD.name: "p1"}, failures=1), seen(OTHER)), R, Reason.RUNNING
    ),
    "a pod lost past the retries fails the stage": Case(
        one(known(pods={POD.name: "p1"}, failures=2), seen(OTHER)),
        *(F, Reason.RETRIES_SPENT, (Remove("data", "u1"),), f"pod {POD.name} was lost, and 2 retries are used up"),
    ),
    "a job that succeeded has its result read": Case(
        one(known(), seen(condition="Succeeded")), R, None, (Load("data"),)
    ),
    "a job that succeeded with a result is done": Case(
        one(known(), seen(condition="Succeeded", result=RESULT, result_read=True)), D, Reason.DONE
    ),
    "a job that succeeded without a result fails": Case(
        one(known(), seen(condition="Succeeded", result_read=True)), F, Reason.NO_RESULT, (), "committed no result"
    ),
    "a job that succeeded with its first pod waits for the one that commits": Case(
        one(known(), seen(RUNS, condition="Succeeded", result_read=True)), R, Reason.RUNNING, (), "its last pods end"
    ),
    "a job past its deadline is removed": Case(
        one(known(), seen(RUNS), deadline_seconds=99),
        *(F, Reason.DEADLINE, (Remove("data", "u1"),), "deadline of 99 s passed"),
    ),
    "a job before its deadline goes on": Case(one(known(), seen(RUNS), deadline_seconds=101), R, Reason.RUNNING),
    "a job that waits past its deadline is removed": Case(
        one(known(state=S, pending_since=NOW - 10), seen(NO_NODE), deadline_seconds=99),
        *(F, Reason.DEADLINE, (Remove("data", "u1"),)),
    ),
    "the time for which a job was held does not count towards its deadline": Case(
        one(known(held_s=50.0), seen(RUNS), deadline_seconds=51), R, Reason.RUNNING
    ),
    "the time for which a job was not held does": Case(
        one(known(held_s=50.0), seen(RUNS), deadline_seconds=49), F, Reason.DEADLINE, (Remove("data", "u1"),)
    ),
    "no further attempt starts past the deadline": Case(
        one(backoff(-1), NOTHING, deadline_seconds=99), F, Reason.DEADLINE, (), "deadline of 99 s passed"
    ),
    "a job that already leaves is not removed past the deadline": Case(
        one(backoff(-1), seen(leaving=True), deadline_seconds=99), F, Reason.DEADLINE
    ),
    "the deadline holds for all attempts together": Case(
        one(known(attempts=[asked(100, 129), asked(5)]), seen(RUNS, attempt=2), deadline_seconds=99),
        *(F, Reason.DEADLINE, (Remove("data", "u1"),)),
    ),
    "a job that belongs to something else is not touched": Case(
        one(fresh(), seen(RUNS, owned=False)),
        W,
        Reason.REFUSED,
        (),
        "a job lab-data is there that belongs to something else",
    ),
    "a failed job that belongs to something else is not touched": Case(
        one(known(attempts=[asked(9, 129), asked(5)], job_uid=""), ended(2, owned=False)), W, Reason.REFUSED
    ),
    "a stage that failed leaves no running job behind": Case(
        one(known(state=F, reason=Reason.DEADLINE, attempts=[asked(100, 143)]), seen(RUNS)),
        F,
        Reason.DEADLINE,
        (Remove("data", "u1"),),
    ),
    "a stage that failed removes its running job once": Case(
        one(known(state=F, reason=Reason.DEADLINE), seen(RUNS, leaving=True)), F, Reason.DEADLINE
    ),
    "a stage that failed leaves what runs under its name to whom it belongs": Case(
        one(known(state=F, reason=Reason.DEADLINE), seen(RUNS, uid="x", owned=False)), F, Reason.DEADLINE
    ),
    "a stage that failed keeps its ended job for whoever reads the log": Case(
        one(known(state=F, reason=Reason.EXIT_PERMANENT), ended(2)), F, Reason.EXIT_PERMANENT
    ),
    "a stage that is done stays done": Case(one(PARENT, seen(condition="Succeeded")), D, Reason.DONE),
    "a job whose exit code nobody knows counts as killed": Case(
        one(known(), ended(None)), W, Reason.RETRYING, (), "exit code 137"
    ),
    "what the stage said last is told": Case(
        one(known(), ended(2, last_error="epochs: must be > 0")), F, Reason.EXIT_PERMANENT, (), "epochs: must be > 0"
    ),
    **{
        f"a job that is pending says why: {name}": Case(one(STARTS, facts), S, reason, (), says)
        for name, (facts, reason, says) in PENDING.items()
    },
    **{
        f"exit code {code} is {'retried' if worth_a_retry(code) else 'permanent'}": Case(
            one(known(), ended(code)),
            *((W, Reason.RETRYING) if worth_a_retry(code) else (F, Reason.EXIT_PERMANENT)),
            says=f"exit code {int(code)} is {'worth a retry' if worth_a_retry(code) else 'permanent'}",
        )
        for code in ExitCode
        if code is not ExitCode.DONE
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_seen_decides_what_follows(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("code", [code for code in ExitCode if worth_a_retry(code)])
def test_retries_are_counted_backed_off_and_spent(code: int) -> None:
    facts = one(fresh(), NOTHING)
    delays = []
    for attempt in (1, 2, 3):
        plan = decide(facts)
        assert plan.actions == (Launch("data", attempt),) and stage_of(plan).not_before is None
        plan = decide(next_facts(with_stage(facts, data=ended(code, attempt=attempt, uid=f"u{attempt}")), plan))
        stage = stage_of(plan)
        assert stage.attempts[-1].exit_code == code and stage.attempts[-1].ended == facts.now
        if stage.not_before is not None:
            delays.append(stage.not_before - facts.now)
            facts = next_facts(with_stage(facts, data=NOTHING), plan, now=stage.not_before)
    assert delays == [1.0, 2.0]
    assert (stage.state, stage.reason, stage.ended, len(stage.attempts)) == (F, Reason.RETRIES_SPENT, facts.now, 3)
    assert stage.message.startswith(f"exit code {int(code)}, and 2 retries are used up")


def test_a_stage_that_is_done_has_its_outputs_and_its_attempt_closed() -> None:
    stage = stage_of(CASES["a job that succeeded with a result is done"].check())
    assert (stage.outputs, stage.metrics) == (RESULT.outputs, RESULT.metrics)
    assert (stage.ended, stage.attempts[0].ended, stage.attempts[0].exit_code) == (NOW, NOW, 0)
    assert stage_of(CASES["a result that stands is taken and nothing is started"].check()).attempts == []


def test_a_lost_pod_is_counted_once() -> None:
    facts = one(known(pods={POD.name: "p1"}), seen(OTHER))
    plan = decide(facts)
    assert (stage_of(plan).failures, len(stage_of(plan).attempts)) == (1, 1)
    assert stage_of(decide(next_facts(facts, plan))).failures == 1


def test_pods_that_were_lost_together_are_one_failure() -> None:
    pods = [replace(RUNS, name=name, uid="new") for name in "abc"]
    stage = stage_of(decide(one(known(pods=dict.fromkeys("abc", "old")), seen(*pods))))
    assert (stage.failures, stage.state) == (1, R)


def test_pods_of_a_new_attempt_are_no_lost_ones() -> None:
    facts = one(backoff(-1, pods={POD.name: "p1"}), NOTHING)
    started = next_facts(with_stage(facts, data=seen(OTHER, uid="u2", attempt=2)), decide(facts))
    assert (stage_of(decide(started)).failures, stage_of(decide(started)).job_uid) == (1, "u2")


def test_a_lost_pod_is_counted_though_it_was_away_between_two_looks() -> None:
    facts = one(known(pods={POD.name: "p1"}), seen())
    plan = decide(facts)
    assert stage_of(decide(next_facts(with_stage(facts, data=seen(OTHER)), plan))).failures == 1


def test_a_pod_that_leaves_is_not_lost_until_another_has_its_name() -> None:
    leaving = one(known(pods={POD.name: "p1"}), seen(replace(RUNS, leaving=True)))
    assert stage_of(decide(leaving)).failures == 0
    left_over = one(known(), seen(replace(RUNS, leaving=True)))
    assert stage_of(decide(next_facts(with_stage(left_over, data=seen(OTHER)), decide(left_over)))).failures == 0


def test_waiting_for_pods_is_timed_from_when_it_began() -> None:
    plan = decide(one(known(), seen(POD)))
    assert stage_of(plan).pending_since == NOW
    plan = decide(next_facts(one(known(), seen(POD)), plan, now=NOW + 50))
    assert stage_of(plan).pending_since == NOW
    assert stage_of(decide(next_facts(one(known(), seen(RUNS)), plan))).pending_since is None


def test_progress_is_kept_until_the_attempt_ends() -> None:
    assert stage_of(decide(one(known(), seen(RUNS, progress="train 3/9")))).progress == "train 3/9"
    told = known(progress="train 3/9")
    assert stage_of(decide(one(told, seen(RUNS)))).progress == "train 3/9"
    assert stage_of(decide(one(told, ended(129)))).progress == ""


def test_independent_stages_start_side_by_side() -> None:
    plan = decide(run(*((curate(name), fresh(name), NOTHING) for name in "abc")))
    assert plan.actions == (Launch("a", 1), Launch("b", 1), Launch("c", 1))


@pytest.mark.parametrize(
    ("status", "facts", "state", "does"),
    [
        (fresh("b"), NOTHING, W, ()),
        (None, NOTHING, W, ()),
        (known("b"), seen(RUNS), R, ()),
        (known("b", S, job_uid=""), NOTHING, S, (Launch("b", 1),)),
        (backoff(-1).model_copy(update={"name": "b"}), NOTHING, S, (Launch("b", 2),)),
    ],
    ids=["not started", "never looked at", "running", "asked for", "between two attempts"],
)
def test_a_failed_stage_stops_only_what_has_not_started(
    status: StageStatus | None, facts: StageFacts, state: RunState, does: tuple[object, ...]
) -> None:
    failed = known("a", F, reason=Reason.EXIT_PERMANENT)
    plan = decide(run((curate("a"), failed, ended(2)), (curate("b"), status, facts)))
    stage = stage_of(plan, "b")
    assert (stage.state, plan.actions) == (state, does)
    if state is W:
        assert (stage.reason, stage.message) == (Reason.STAGE_FAILED, "a failed")


def test_why_an_attempt_failed_is_told_until_the_next_one_starts() -> None:
    plan = decide(one(backoff(1), ended(129, leaving=True)))
    plan = decide(next_facts(one(backoff(1), NOTHING), plan))
    assert "exit code 129" in stage_of(plan).message


def test_the_container_s_exit_code_is_what_counts() -> None:
    killed = replace(POD, phase="Failed", containers=(ContainerView("pytorch", exit_code=137, ended="OOMKilled"),))
    stage = stage_of(decide(one(known(), seen(killed, condition="Failed"))))
    assert stage.attempts[0].exit_code == 137 and "OOMKilled" in stage.message


def test_a_pod_on_a_node_that_is_gone_is_dropped_once_its_grace_is_long_past() -> None:
    leaving = replace(RUNS, leaving=True, gone_by=NOW - 30)
    assert decide(one(known(), seen(leaving))).actions == ()
    stuck = replace(leaving, gone_by=NOW - 61)
    assert decide(one(known(), seen(stuck))).actions == (Drop("data", stuck.name, stuck.uid),)
    assert Drop("data", stuck.name, stuck.uid) in decide(one(known(), seen(stuck, leaving=True))).actions


def test_a_gang_of_which_one_pod_finds_no_node_is_pending_though_the_others_run() -> None:
    facts = one(known(), seen(replace(RUNS, name="b"), NO_NODE), pending_timeout_seconds=600)
    plan = decide(facts)
    assert (stage_of(plan).state, stage_of(plan).reason, stage_of(plan).pending_since) == (R, Reason.NO_NODE, NOW)
    late = decide(next_facts(facts, plan, now=NOW + 601))
    assert stage_of(late).reason is Reason.PENDING_TOO_LONG and Remove("data", "u1") in late.actions
