"""Numbers of principles that a simulated labeller never writes are refused before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from editr1.config.curate_stage import CurateStageConfig

SHAPES = {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}
PHOTOS = {"total": [3, 10], "follow": [1, 4], "keep": [1, 4], "quality": [1, 3]}


@pytest.mark.parametrize(
    ("labeller", "principles", "proposal"),
    [
        ("shapes", {}, "{total: [6, 6], follow: [1, 2], keep: [3, 4], quality: [1, 1]}"),
        ("shapes", SHAPES | {"follow": [2, 2], "keep": [4, 4], "total": [6, 7]}, "{total: [6, 6], follow: [1, 2]"),
        ("photos", {}, "{total: [3, 3], follow: [1, 1], keep: [1, 1], quality: [1, 1]}"),
    ],
)
def test_impossible_numbers_are_refused_with_possible_ones(labeller: str, principles: dict, proposal: str) -> None:
    with pytest.raises(ValidationError) as error:
        CurateStageConfig.model_validate({"labeller": labeller, "curation": {"principles": principles}})
    message = str(error.value)
    assert f"the labeller {labeller!r} never generates the allowed numbers of principles" in message
    assert f"set curation.principles to {proposal}" in message


@pytest.mark.parametrize(
    ("labeller", "curation"),
    [
        ("shapes", {"principles": SHAPES}),
        ("shapes", {"variant": "holistic"}),
        ("photos", {"principles": PHOTOS}),
        ("endpoint", {}),
    ],
)
def test_possible_numbers_are_accepted(labeller: str, curation: dict) -> None:
    CurateStageConfig.model_validate({"labeller": labeller, "curation": curation})
