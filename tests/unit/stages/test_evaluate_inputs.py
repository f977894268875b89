"""What an evaluation and an SFT need is said before anything is read."""

from __future__ import annotations

import pytest

from editr1.runs.kinds import KINDS, Kind


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "nothing to evaluate"),
        (("pairs", "cases"), "nothing to evaluate"),
        (("rl",), "judged on pairs"),
        (("sft", "before", "cases"), "judged on pairs"),
        (("before", "rl", "pairs"), "judged on cases"),
    ],
)
def test_an_evaluation_that_lacks_something_says_what(given: tuple[str, ...], says: str) -> None:
    assert any(says in fault for fault in KINDS[Kind.EVALUATE].rule(given))


@pytest.mark.parametrize(
    "given",
    [("rl", "pairs"), ("sft", "rl", "pairs"), ("before", "cases"), ("after", "cases"), ("rl", "after", "cases")],
)
def test_a_verifier_alone_and_an_editor_alone_are_enough(given: tuple[str, ...]) -> None:
    assert KINDS[Kind.EVALUATE].rule(given) == []


@pytest.mark.parametrize(
    ("given", "right"), [(("rows",), True), (("pairs",), True), ((), False), (("rows", "pairs"), False)]
)
def test_sft_learns_from_rows_or_from_pairs(given: tuple[str, ...], right: bool) -> None:
    assert (KINDS[Kind.SFT].rule((*given, "model")) == []) is right
