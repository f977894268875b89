"""Failed scores on public benchmarks are logged, and stop the stage above ``max_failed_fraction``."""

from __future__ import annotations

import logging

import pytest

from editr1.config.evaluate import EvaluateConfig
from editr1.errors import ExitCode, exit_code_of
from editr1.evaluation.report.model import BenchmarkTable
from editr1.evaluation.scoring import TooManyFailures
from editr1.llm.errors import RequestRefused
from editr1.stages.runtime.public_sets import _checked


def table(**failures: int) -> BenchmarkTable:
    return BenchmarkTable(name="GEdit", rows=(), num_edits=40, failures=failures, first_failure="400: bad field")


def test_failures_within_the_limit_are_logged_with_cause_and_first_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert _checked(table(unparsed=1, refused=1), EvaluateConfig(max_failed_fraction=0.05)).num_edits == 40
    assert caplog.messages == [
        "GEdit: 2 of 40 edits have no score (unparsed: 1, refused: 1). The first failure: 400: bad field"
    ]


def test_more_failures_than_allowed_end_with_exit_code_4() -> None:
    with pytest.raises(TooManyFailures, match=r"3 of 40 scores failed \(unparsed: 3\).*400: bad field") as error:
        _checked(table(unparsed=3), EvaluateConfig(max_failed_fraction=0.05))
    assert exit_code_of(error.value) == ExitCode.REWARD_BUDGET


def test_judge_that_refuses_everything_is_a_configuration_error_whatever_may_fail() -> None:
    with pytest.raises(RequestRefused, match="the judge rejected all 40 edits: 400: bad field") as error:
        _checked(table(refused=40), EvaluateConfig(max_failed_fraction=1.0))
    assert exit_code_of(error.value) == ExitCode.CONFIG
