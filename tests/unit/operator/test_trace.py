"""The OpenTelemetry trace of a run has the same IDs after a restart of the operator."""

from editr1.launch.kubernetes.run_status import AttemptStatus, RunState, RunStatus, StageStatus
from editr1.telemetry import Span, as_record
from editr1_operator.trace import SERVICE, spans_of, traceparent

ENDED = AttemptStatus(started=10, ended=20, exit_code=129, reason="the store is unreachable")
STATUS = RunStatus(
    state=RunState.DONE,
    started=5,
    ended=50,
    stages=[StageStatus(name="sft", kind="sft", attempts=[ENDED, AttemptStatus(started=21, ended=40, exit_code=0)])],
)


def test_attempts_are_children_of_the_run_and_linked_in_order() -> None:
    first, second, run = spans_of("uid", "lab", "quick", STATUS)
    records = [as_record(span, SERVICE) for span in (first, second, run)]
    assert [record["name"] for record in records] == [Span.ATTEMPT, Span.ATTEMPT, Span.RUN]
    assert {record["trace"] for record in records} == {records[2]["trace"]}
    assert [record["parent"] for record in records] == [records[2]["span"], records[2]["span"], None]
    assert [record["ok"] for record in records] == [False, True, True]
    assert (records[0]["start"], records[0]["end"]) == (10, 20)
    assert records[0]["attributes"] == {
        "stage": "sft",
        "attempt": 1,
        "exit_code": 129,
        "reason": "the store is unreachable",
    }
    assert [format(link.context.span_id, "016x") for link in second.links] == [records[0]["span"]]


def test_traceparent_of_a_pod_refers_to_its_attempt() -> None:
    first, _, run = (as_record(span, SERVICE) for span in spans_of("uid", "lab", "quick", STATUS))
    assert traceparent("uid", "sft", 1) == f"00-{first['trace']}-{first['span']}-01"
    assert traceparent("uid") == f"00-{run['trace']}-{run['span']}-01"


def test_unfinished_run_has_no_span_and_each_run_has_its_own_trace() -> None:
    going = STATUS.model_copy(update={"ended": None, "state": RunState.RUNNING})
    assert len(spans_of("uid", "lab", "quick", going)) == 2
    assert traceparent("uid").split("-")[1] != traceparent("other").split("-")[1]
