"""Each rule by which a campaign of faults classifies what happened."""

from __future__ import annotations

import pytest

from tests.faults.classify import Attempt, Evidence, Outcome, classify, last_error, unclear


def attempt(code: int | None, output: str = "error: stage sft: the store is not reachable\n") -> Attempt:
    return Attempt(code, 1.0, output)


def evidence(*codes: int | None, **fields: object) -> Evidence:
    good = {"difference": ""} if codes[-1] == 0 else {}
    values: dict[str, object] = {
        "met": True,
        "persists": False,
        "attempts": tuple(map(attempt, codes)),
        **good,
        **fields,
    }
    return Evidence(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (evidence(0), Outcome.RIGHT),
        (evidence(0, met=False, difference="other digest"), Outcome.NOT_MET),
        (evidence(129, 0), Outcome.RIGHT_AGAIN),
        (evidence(0, difference="other digest"), Outcome.WRONG_RESULT),
        (evidence(129, 0, difference="other digest"), Outcome.WRONG_RESULT),
        (evidence(0, difference="other digest", counted_failures=2), Outcome.RIGHT),
        (evidence(None), Outcome.HANG),
        (evidence(129, None), Outcome.HANG),
        (evidence(0, left=("7 (editr1.stages.sft)",)), Outcome.HANG),
        (evidence(5, 0), Outcome.UNCLEAR_ERROR),
        (evidence(1, 1, persists=True), Outcome.UNCLEAR_ERROR),
        (evidence(5, 5, persists=True), Outcome.CLEAR_ERROR),
        (evidence(5, 5), Outcome.UNCLEAR_ERROR),
        (evidence(129, 129, persists=True), Outcome.UNCLEAR_ERROR),
        (evidence(5, 5, persists=True, names=("result.json",)), Outcome.UNCLEAR_ERROR),
        (evidence(5, 5, persists=True, names=("store",)), Outcome.CLEAR_ERROR),
        (evidence(5, 5, persists=True, replaceable=True), Outcome.LOST_WORK),
        (evidence(0, lost_steps=3, allowed_steps=2), Outcome.LOST_WORK),
        (evidence(0, lost_steps=2, allowed_steps=2), Outcome.RIGHT),
        (evidence(0, rerun=("curate",)), Outcome.LOST_WORK),
        (evidence(143, 0, stopped_by="SIGTERM"), Outcome.RIGHT_AGAIN),
        (evidence(-9, 0, stopped_by="SIGKILL"), Outcome.RIGHT_AGAIN),
        (evidence(5, 0, stopped_by="SIGTERM"), Outcome.UNCLEAR_ERROR),
        (evidence(-11, 0), Outcome.UNCLEAR_ERROR),
    ],
)
def test_outcome_follows_from_the_evidence(given: Evidence, outcome: Outcome) -> None:
    assert classify(given).outcome is outcome


@pytest.mark.parametrize(
    ("code", "output", "reason"),
    [
        (2, "Traceback (most recent call last):\nValueError: no\n", "traceback"),
        (247, "error: it ended\n", "unexpected"),
        (5, "", "without any message"),
        (129, "error: 12:00:00 INFO editr1.stage: ready\n", "INFO"),
        (5, "error: file result.json is damaged\n", ""),
        (0, "", ""),
    ],
)
def test_unclear_end_has_a_reason(code: int, output: str, reason: str) -> None:
    found = unclear(attempt(code, output))
    assert reason in found
    assert bool(found) == bool(reason)


def test_last_error_prefers_error_lines() -> None:
    assert last_error(attempt(5, "error: first\nerror: second\nnote\n")) == "error: second"
    assert last_error(attempt(5, "a\nb\n\n")) == "b"
