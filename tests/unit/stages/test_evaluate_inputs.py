"""Missing inputs of evaluate and sft are reported before anything is read."""

from __future__ import annotations

import pytest

from editr1.runs.kinds import KINDS, Kind


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "nothing to evaluate"),
        (("pairs", "cases"), "nothing to evaluate"),
        (("rl",), "pairs: missing"),
        (("sft", "before", "cases"), "pairs: missing"),
        (("before", "rl", "pairs"), "cases: missing"),
    ],
)
def test_missing_input_of_an_evaluation_is_reported(given: tuple[str, ...], message: str) -> None:
    assert any(message in fault for fault in KINDS[Kind.EVALUATE].rule(given))


@pytest.mark.parametrize(
    "given",
    [("rl", "pairs"), ("sft", "rl", "pairs"), ("before", "cases"), ("after", "cases"), ("rl", "after", "cases")],
)
def test_verifier_or_editor_is_sufficient(given: tuple[str, ...]) -> None:
    assert KINDS[Kind.EVALUATE].rule(given) == []


@pytest.mark.parametrize(
    ("given", "right"), [(("rows",), True), (("pairs",), True), ((), False), (("rows", "pairs"), False)]
)
def test_sft_learns_from_rows_or_from_pairs(given: tuple[str, ...], right: bool) -> None:
    assert (KINDS[Kind.SFT].rule((*given, "model")) == []) is right
