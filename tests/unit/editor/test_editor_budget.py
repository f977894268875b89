"""What too many failed scores mean: a spent budget, or a service that is gone."""

from __future__ import annotations

import pytest

from editr1.editor.reward import RewardBudgetSpent, RewardUnreachable, check_budget


@pytest.mark.parametrize(
    ("causes", "kind"),
    [
        ({"unreachable": 3, "engine": 1}, RewardUnreachable),
        ({"unreachable": 2, "engine": 2}, RewardBudgetSpent),
        ({"unparsed": 4}, RewardBudgetSpent),
    ],
)
def test_a_service_that_is_gone_is_no_spent_budget(causes: dict[str, int], kind: type[Exception]) -> None:
    with pytest.raises(RewardBudgetSpent) as raised:
        check_budget(4, 8, 0.1, causes)
    assert type(raised.value) is kind


def test_what_is_allowed_stops_nothing() -> None:
    check_budget(2, 10, 0.2, {"unreachable": 2})
    check_budget(0, 0, 0.0, {})
