"""Too many failed scores raise an error that depends on the cause of the failures."""

from __future__ import annotations

import pytest

from editr1.editor.reward import RewardBudgetExceeded, RewardRefused, RewardUnreachable, check_budget
from editr1.errors import ExitCode


@pytest.mark.parametrize(
    ("causes", "kind"),
    [
        ({"unreachable": 3, "engine": 1}, RewardUnreachable),
        ({"unreachable": 2, "engine": 2}, RewardBudgetExceeded),
        ({"unparsed": 4}, RewardBudgetExceeded),
        ({"refused": 4}, RewardBudgetExceeded),
    ],
)
def test_error_depends_on_the_main_cause_of_failure(causes: dict[str, int], kind: type[Exception]) -> None:
    with pytest.raises(
        RewardBudgetExceeded, match=r"4 of 8 scores failed.*The first failure: no <score> tag"
    ) as raised:
        check_budget(4, 8, 0.1, causes, "no <score> tag")
    assert type(raised.value) is kind


@pytest.mark.parametrize("causes", [{"refused": 8}, {"invalid": 8}, {"refused": 6, "invalid": 2}])
def test_service_that_refuses_every_sample_is_an_error_of_the_configuration(causes: dict[str, int]) -> None:
    with pytest.raises(RewardRefused, match="Check that the address is that of a reward server") as raised:
        check_budget(8, 8, 0.2, causes, "http://reward: 400: unknown field")
    assert raised.value.exit_code == ExitCode.CONFIG
    assert "The first failure: http://reward: 400: unknown field" in str(raised.value)


def test_failures_within_the_budget_raise_no_error() -> None:
    check_budget(2, 10, 0.2, {"unreachable": 2})
    check_budget(0, 0, 0.0, {})
