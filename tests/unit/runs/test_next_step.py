import pytest

from editr1.errors import ExitCode, is_retryable
from editr1.runs.next_step import (
    NextStep,
    after_end,
    before_start,
    dependencies,
    overdue,
    services_wanted,
    startable,
)
from editr1.runs.spec import StageSpec


def test_stage_with_a_result_is_skipped() -> None:
    assert before_start(has_result=True).action is NextStep.SKIP
    assert before_start(has_result=False).action is NextStep.START


@pytest.mark.parametrize(
    ("code", "result", "failures", "retries", "action"),
    [
        (0, True, 0, 0, NextStep.FINISH),
        (0, False, 0, 2, NextStep.FAIL),
        (ExitCode.CONFIG, False, 1, 9, NextStep.FAIL),
        (ExitCode.DATA, False, 1, 9, NextStep.FAIL),
        (ExitCode.REWARD_BUDGET, False, 1, 9, NextStep.FAIL),
        (ExitCode.UNEXPECTED, False, 1, 9, NextStep.FAIL),
        (ExitCode.TRANSIENT, False, 1, 1, NextStep.RETRY),
        (ExitCode.TRANSIENT, False, 2, 1, NextStep.FAIL),
        (ExitCode.KILLED, False, 1, 2, NextStep.RETRY),
        (ExitCode.TERMINATED, False, 1, 2, NextStep.RETRY),
        (-9, False, 1, 2, NextStep.RETRY),
        (ExitCode.TERMINATED, True, 1, 0, NextStep.FINISH),
        (-6, True, 1, 0, NextStep.FINISH),
    ],
)
def test_next_step_after_an_attempt_depends_on_exit_code_result_and_retries(
    code: int, result: bool, failures: int, retries: int, action: NextStep
) -> None:
    assert after_end(code, result, failures, retries).action is action


def test_backoff_doubles_up_to_one_minute() -> None:
    delays = [after_end(129, False, n, 99).delay for n in range(1, 10)]
    assert delays[:4] == [1, 2, 4, 8]
    assert max(delays) == 60


def test_signals_and_exit_codes_of_128_or_more_are_retryable() -> None:
    assert [is_retryable(c) for c in (1, 2, 127, 128, 143, -15)] == [False, False, False, True, True, True]


STAGES = [
    StageSpec(name="curate", kind="curate"),
    StageSpec(name="sft", kind="sft", inputs={"rows": "stage:curate/rows", "model": "builtin:shapes-verifier"}),
    StageSpec(name="rrm", kind="serve", inputs={"model": "stage:sft/model"}),
    StageSpec(name="grpo", kind="grpo", reward="rrm", inputs={"cases": "stage:curate/cases"}),
    StageSpec(name="other", kind="curate"),
]


def test_stage_starts_once_its_inputs_and_its_reward_model_are_complete() -> None:
    def names(*done: str) -> list[str]:
        return [stage.name for stage in startable(STAGES, set(done))]

    assert names() == ["curate", "other"]
    assert names("curate") == ["sft", "other"]
    assert names("curate", "sft") == ["grpo", "other"]
    assert names("curate", "sft", "grpo", "other") == []
    assert dependencies(STAGES[3], STAGES) == {"curate", "sft"}


def test_service_is_needed_until_the_last_stage_it_scores_is_done() -> None:
    assert services_wanted(STAGES, {"curate"}) == {"rrm"}
    assert services_wanted(STAGES, {"curate", "sft", "grpo"}) == frozenset()


@pytest.mark.parametrize(
    ("started", "limit", "by"), [(None, 5, None), (100, None, None), (100, 50, None), (100, 10, 40)]
)
def test_overdue_is_the_elapsed_time_beyond_the_limit(
    started: float | None, limit: float | None, by: float | None
) -> None:
    assert overdue(started, 150, limit) == by
