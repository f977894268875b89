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
def test_missing_evaluation_input_is_reported(given: tuple[str, ...], message: str) -> None:
    assert any(message in fault for fault in KINDS[Kind.EVALUATE].rule(given))


@pytest.mark.parametrize(
    "given",
    [("rl", "pairs"), ("sft", "rl", "pairs"), ("before", "cases"), ("after", "cases"), ("rl", "after", "cases")],
)
def test_evaluation_accepts_a_verifier_or_an_editor(given: tuple[str, ...]) -> None:
    assert KINDS[Kind.EVALUATE].rule(given) == []


@pytest.mark.parametrize(
    ("given", "right"), [(("rows",), True), (("pairs",), True), ((), False), (("rows", "pairs"), False)]
)
def test_sft_requires_either_rows_or_pairs(given: tuple[str, ...], right: bool) -> None:
    assert (KINDS[Kind.SFT].rule((*given, "model")) == []) is right
