"""State, conditions, events and record of a run, and the time of its next reconciliation."""

from dataclasses import replace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.kinds import Kind
from editr1.runs.record import Attempt, RunRecord, StageRecord, State
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.conditions import reject, summarize
from editr1_operator.decide import decide
from editr1_operator.events import MAX_MESSAGE_LENGTH, changes
from editr1_operator.record import update_record
from editr1_operator.timing import PENDING_SECONDS, PROGRESS_SECONDS, REFUSED_SECONDS, RESYNC_SECONDS, next_reconcile
from tests.unit.operator.conftest import (
    GENERATION,
    NO_JOB,
    NOW,
    POD,
    RESULT,
    RUNNING_POD,
    backoff,
    curate,
    launched,
    launched_status,
    next_observed,
    observed_job,
    single_stage,
    unlaunched_status,
    with_stage,
)

W, S, R, D, F = RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.DONE, RunState.FAILED
P = RunState.SUSPENDED
NOW_TEXT, LATER_TEXT = "2027-01-15T08:00:00Z", "2027-01-15T08:01:00Z"

RUNNING = launched_status("a", R, reason=Reason.RUNNING, progress="train 1/9")
STARTING = launched_status("b", S, reason=Reason.NO_NODE, message="no room", attempts=[])
FAILED_STAGE = launched_status("c", F, reason=Reason.DEADLINE, message="the deadline of 9 s has passed")
FINISHED = launched_status("d", D, reason=Reason.DONE)
UP_TO_DATE = unlaunched_status("e").model_copy(update={"state": D, "reason": Reason.UP_TO_DATE})
WAITING = unlaunched_status("f", reason=Reason.INPUTS_MISSING, message="waiting for a")
QUEUED = launched_status("g", W, reason=Reason.QUEUED, message="waiting for admission by queue research")
SUSPENDED = launched_status("h", P, reason=Reason.SUSPENDED, suspended_since=NOW - 50)
RETRYING = launched_status("i", W, reason=Reason.RETRYING, message="exit code 129", attempts=[launched(9, 129)])
SERVICE = StageStatus(name="rrm", kind="serve", state=R, reason=Reason.RUNNING)


def summary_of(
    *stages: StageStatus, suspend: bool = False, before: RunStatus | None = None, now: float = NOW
) -> RunStatus:
    status = (before or RunStatus()).model_copy(update={"stages": list(stages)})
    specs = [StageSpec(name=stage.name, kind=Kind(stage.kind)) for stage in stages]
    return summarize(status, RunBody(stages=specs, suspend=suspend), GENERATION, now)


def true_conditions(status: RunStatus) -> list[str]:
    return [condition.type for condition in status.conditions if condition.status == "True"]


@pytest.mark.parametrize(
    ("stages", "state", "reason", "message", "stage", "true"),
    [
        ([RUNNING, WAITING], R, Reason.RUNNING, "", "a", "Progressing"),
        ([STARTING, WAITING], S, Reason.NO_NODE, "b: no room", "b", "Progressing"),
        ([FINISHED, STARTING], R, Reason.NO_NODE, "b: no room", "b", "Progressing"),
        ([RUNNING, STARTING], R, Reason.NO_NODE, "b: no room", "a, b", "Progressing"),
        ([RETRYING], R, Reason.RETRYING, "i: exit code 129", "i", "Progressing"),
        ([WAITING, FINISHED], W, Reason.INPUTS_MISSING, "f: waiting for a", "f", "Progressing"),
        ([WAITING, QUEUED], W, Reason.QUEUED, "g: waiting for admission by queue research", "g", "Progressing"),
        ([FAILED_STAGE, QUEUED], W, Reason.QUEUED, "g: waiting for admission by queue research", "g", "Progressing"),
        ([QUEUED, RUNNING], R, Reason.QUEUED, "g: waiting for admission by queue research", "g, a", "Progressing"),
        ([QUEUED, WAITING], W, Reason.QUEUED, "g: waiting for admission by queue research", "g", "Progressing"),
        ([FAILED_STAGE, RUNNING], R, Reason.RUNNING, "", "a", "Progressing"),
        ([FAILED_STAGE, WAITING, FINISHED], F, Reason.DEADLINE, "c: the deadline of 9 s has passed", "c", "Failed"),
        ([FINISHED, UP_TO_DATE], D, Reason.DONE, "", "", "Ready"),
        ([UP_TO_DATE], D, Reason.UP_TO_DATE, "all stages are up to date", "", "Ready"),
        ([SERVICE, FINISHED], D, Reason.DONE, "", "", "Ready"),
    ],
)
def test_run_state_and_conditions_follow_its_stages(
    stages: list[StageStatus], state: RunState, reason: Reason, message: str, stage: str, true: str
) -> None:
    status = summary_of(*stages)
    assert (status.state, status.reason, status.message, status.stage) == (state, reason, message, stage)
    assert true_conditions(status) == [true]
    assert {condition.reason for condition in status.conditions} == {str(reason)}
    assert status.ended == (NOW if status.state in (D, F) else None)


@pytest.mark.parametrize(
    ("stages", "state", "true"),
    [
        ([FINISHED, SUSPENDED], P, []),
        ([SUSPENDED, RUNNING], R, ["Progressing"]),
        ([FAILED_STAGE, SUSPENDED], P, []),
        ([FAILED_STAGE, FINISHED], F, ["Failed"]),
        ([FINISHED], D, ["Ready"]),
    ],
)
def test_run_is_suspended_when_no_stage_is_running(stages: list[StageStatus], state: RunState, true: list[str]) -> None:
    status = summary_of(*stages, suspend=True)
    assert (status.state, true_conditions(status)) == (state, true)


def test_progress_of_all_active_stages_is_shown() -> None:
    assert summary_of(RUNNING, RETRYING.model_copy(update={"progress": "draw 2/3"})).progress == "train 1/9, draw 2/3"


def test_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    first = summary_of(RUNNING)
    assert {item.last_transition_time for item in first.conditions} == {NOW_TEXT}
    same = summary_of(STARTING, before=first, now=NOW + 60)
    assert {(item.last_transition_time, item.reason) for item in same.conditions} == {(NOW_TEXT, "NoNode")}
    done = summary_of(FINISHED, before=first, now=NOW + 60)
    times = {item.type: item.last_transition_time for item in done.conditions}
    assert times == {"Ready": LATER_TEXT, "Progressing": LATER_TEXT, "Failed": NOW_TEXT}


def test_status_and_conditions_have_the_observed_generation() -> None:
    status = summary_of(RUNNING)
    assert status.observed_generation == GENERATION
    assert {item.observed_generation for item in status.conditions} == {GENERATION}


def test_start_and_end_of_a_run_are_set_once() -> None:
    first = summary_of(RUNNING)
    done = summary_of(FINISHED, before=first, now=NOW + 60)
    again = summary_of(FINISHED, before=done, now=NOW + 90)
    assert (again.started, again.ended) == (NOW, NOW + 60)
    assert summary_of(RUNNING, before=done, now=NOW + 90).ended is None


def test_invalid_specification_fails_the_run_and_keeps_its_stages() -> None:
    status = reject(summary_of(RUNNING), Reason.INVALID, "spec.stages.a: no such setting", 4, NOW + 60)
    assert (status.state, status.reason, status.ended, status.observed_generation) == (F, Reason.INVALID, NOW + 60, 4)
    assert true_conditions(status) == ["Failed"] and status.stages == [RUNNING]


def seconds_until_next(stage: StageStatus, **limits: Any) -> float:
    spec = curate(stage.name, **limits)
    return next_reconcile(RunStatus(stages=[stage]), RunBody(stages=[spec]), NOW) - NOW


@pytest.mark.parametrize(
    ("stage", "limits", "seconds"),
    [
        (FINISHED, {}, RESYNC_SECONDS),
        (WAITING, {}, RESYNC_SECONDS),
        (QUEUED, {}, RESYNC_SECONDS),
        (SUSPENDED, {"deadline_seconds": 150.0}, RESYNC_SECONDS),
        (RUNNING, {}, PROGRESS_SECONDS),
        (STARTING, {}, PENDING_SECONDS),
        (launched_status("b", W, reason=Reason.REFUSED), {}, REFUSED_SECONDS),
        (launched_status("b", S, reason=Reason.REFUSED), {}, REFUSED_SECONDS),
        (backoff(2), {}, 2.0),
        (RUNNING, {"deadline_seconds": 102.0}, 2.1),
        (RUNNING, {"deadline_seconds": 90.0}, 1.0),
        (launched_status("b", suspended_seconds=50.0), {"deadline_seconds": 52.0}, 2.1),
        (
            launched_status("b", W, reason=Reason.QUEUED, suspended_since=NOW),
            {"deadline_seconds": 90.0},
            RESYNC_SECONDS,
        ),
        (launched_status("b", S, pending_since=NOW - 598), {}, 2.1),
        (launched_status("b", S, pending_since=NOW - 601), {}, 1.0),
    ],
)
def test_delay_of_next_reconciliation_depends_on_state_and_limits(
    stage: StageStatus, limits: dict[str, float], seconds: float
) -> None:
    assert seconds_until_next(stage, **limits) == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize(
    "stage",
    [
        backoff(-9, state=P),
        backoff(-9, state=S, reason=Reason.SERVICE_STARTING),
        backoff(-9, state=S, message="waiting for the pods of the previous attempt to stop"),
    ],
    ids=["suspended", "waiting for its service", "waiting for the previous job to stop"],
)
def test_expired_backoff_is_ignored(stage: StageStatus) -> None:
    assert seconds_until_next(stage) >= 1


def test_service_has_no_deadline() -> None:
    spec = StageSpec(name="rrm", kind="serve", deadline_seconds=50)
    status = RunStatus(stages=[launched_status(spec, reason=Reason.RUNNING)])
    assert next_reconcile(status, RunBody(stages=[spec]), NOW) - NOW == PROGRESS_SECONDS


def test_job_of_another_owner_is_polled_slowly() -> None:
    assert (
        seconds_until_next(launched_status("b", W, reason=Reason.REFUSED, pending_since=NOW - 9999)) == REFUSED_SECONDS
    )


def events(before: StageStatus | None, after: StageStatus, **run: RunStatus) -> list[tuple[str, str, str]]:
    old = RunStatus(stages=[before] if before else [])
    found = changes(run.get("old", old), run.get("new", RunStatus(stages=[after])))
    return [(item["type"], item["reason"], item["message"]) for item in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (RUNNING, RUNNING.model_copy(update={"progress": "train 2/9"}), []),
        (None, WAITING, []),
        (None, unlaunched_status("f", reason=Reason.STAGE_FAILED), []),
        (unlaunched_status("a"), RUNNING, [("Normal", "Running", "a is running")]),
        (unlaunched_status("b"), STARTING, [("Warning", "NoNode", "b: no room")]),
        (RUNNING, launched_status("a", W, reason=Reason.RETRYING, message="x"), [("Warning", "Retrying", "a: x")]),
        (unlaunched_status("e"), UP_TO_DATE, [("Normal", "UpToDate", "e is done")]),
        (
            RUNNING,
            RUNNING.model_copy(update={"failures": 1}),
            [("Warning", "NodeLost", "a: a pod was lost with its node and is created again")],
        ),
    ],
)
def test_stage_change_causes_the_expected_events(
    before: StageStatus | None, after: StageStatus, expected: list[tuple[str, str, str]]
) -> None:
    assert events(before, after) == expected


@pytest.mark.parametrize(
    ("stage", "suspend", "expected"),
    [
        (FINISHED, False, ("Normal", "Done", "the run is done")),
        (FAILED_STAGE, False, ("Warning", "DeadlinePassed", "c: the deadline of 9 s has passed")),
        (SUSPENDED, True, ("Normal", "Suspended", "suspended; use editr1 resume to continue")),
    ],
)
def test_end_or_suspension_of_a_run_causes_one_event(
    stage: StageStatus, suspend: bool, expected: tuple[str, str, str]
) -> None:
    status = summary_of(stage, suspend=suspend)
    before = status.model_copy(update={"state": R})
    assert events(None, stage, old=before, new=status) == [expected]
    assert events(None, stage, old=status, new=status) == []


def test_long_message_is_truncated_to_the_limit_of_an_event() -> None:
    (event,) = events(None, STARTING.model_copy(update={"message": "x" * 9999}))
    assert len(event[2]) == MAX_MESSAGE_LENGTH


def test_loss_of_the_only_node_of_a_job_causes_an_event() -> None:
    observed = single_stage(launched_status(pods={POD.name: "p1"}), observed_job(RUNNING_POD))
    before = decide(observed)
    pending = observed_job(replace(POD, uid="p2"))
    after = decide(next_observed(with_stage(observed, data=pending), before))
    assert "NodeLost" in [item["reason"] for item in changes(before.status, after.status)]


BASE = RunRecord(name="lab", seed=1, created=NOW - 500, versions={"editr1": "0"}, machine="Kubernetes")


def record(
    *stages: StageStatus, base: RunRecord = BASE, suspend: bool = False, **images_and_charts: dict[str, str]
) -> RunRecord:
    spec = RunBody(seed=7, stages=[curate(stage.name) for stage in stages], suspend=suspend)
    return update_record(base, spec, summary_of(*stages, suspend=suspend), images_and_charts)


@pytest.mark.parametrize(
    ("stage", "suspend", "run", "stage_state"),
    [
        (WAITING, False, State.RUNNING, State.PENDING),
        (STARTING, False, State.RUNNING, State.RUNNING),
        (RUNNING, False, State.RUNNING, State.RUNNING),
        (RETRYING, False, State.RUNNING, State.PENDING),
        (SUSPENDED, True, State.INTERRUPTED, State.INTERRUPTED),
        (FINISHED, False, State.DONE, State.DONE),
        (FAILED_STAGE, False, State.FAILED, State.FAILED),
    ],
)
def test_states_of_the_record_follow_the_status(
    stage: StageStatus, suspend: bool, run: State, stage_state: State
) -> None:
    found = record(stage, suspend=suspend)
    assert (found.state, found.stages[stage.name].state) == (run, stage_state)
    assert (found.name, found.seed, found.versions, found.machine) == ("lab", 7, {"editr1": "0"}, "Kubernetes")
    assert found.stages[stage.name].reason == ("" if stage_state is State.DONE else stage.message)


def test_record_has_attempts_outputs_and_the_full_config() -> None:
    outcome = {"outputs": RESULT.outputs, "metrics": RESULT.metrics, "inputs": {"data": "sha256:d"}}
    found = record(launched_status("d", D, attempts=[launched(100, 129), launched(50, 0)], **outcome)).stages["d"]
    assert (found.key, found.outputs, found.metrics, found.inputs) == (
        "k",
        RESULT.outputs,
        RESULT.metrics,
        {"data": "sha256:d"},
    )
    assert found.attempts == [
        Attempt(started=NOW - 100, ended=NOW, exit_code=129),
        Attempt(started=NOW - 50, ended=NOW, exit_code=0),
    ]
    assert found.config["seed"] == 7 and found.release == "lab-d"


def test_record_keeps_image_and_chart_of_the_same_key() -> None:
    old = StageRecord(name="a", kind="curate", key=RUNNING.key, image="old", chart="curate 1")
    base = BASE.model_copy(update={"stages": {"a": old}})
    kept = record(RUNNING, base=base).stages["a"]
    assert (kept.image, kept.chart) == ("old", "curate 1")
    assert record(RUNNING, base=base, a={"image": "new"}).stages["a"].image == "new"
    other = BASE.model_copy(update={"stages": {"a": old.model_copy(update={"key": "other"})}})
    assert record(RUNNING, base=other).stages["a"].image == "", "a stage with another key does not inherit the image"


def test_up_to_date_run_keeps_the_times_and_attempts_of_the_earlier_run() -> None:
    earlier = StageRecord(name="a", kind="curate", key="k", attempts=[Attempt(started=1, ended=2, exit_code=0)])
    base = BASE.model_copy(update={"created": 1.0, "ended": 2.0, "stages": {"a": earlier}})
    existing = StageStatus(name="a", kind="curate", key="k", state=RunState.DONE, reason=Reason.UP_TO_DATE)
    status = RunStatus(state=RunState.DONE, reason=Reason.UP_TO_DATE, started=50, ended=51, stages=[existing])
    found = update_record(base, RunBody(stages=[StageSpec(name="a", kind="curate")]), status, {})
    assert (found.created, found.ended) == (1.0, 2.0) and found.stages["a"].attempts == earlier.attempts


def test_record_has_only_resolved_stages_of_the_specification() -> None:
    base = BASE.model_copy(update={"stages": {"old": StageRecord(name="old", kind="curate")}})
    assert list(record(RUNNING, StageStatus(name="b", kind="curate"), base=base).stages) == ["a"]


def test_new_run_has_a_start_time_and_three_conditions() -> None:
    status = decide(single_stage(None, NO_JOB)).status
    assert (status.state, status.started, true_conditions(status)) == (W, NOW, ["Progressing"])
    assert [item.type for item in status.conditions] == ["Ready", "Progressing", "Failed"]


def test_status_survives_serialization() -> None:
    status = summary_of(RUNNING, RETRYING, STARTING)
    assert RunStatus.model_validate(status.as_json()) == status
