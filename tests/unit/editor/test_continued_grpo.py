"""A continued training of the editor commits the artifact of an undisturbed one, wherever it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from editr1.config.grpo import GrpoConfig
from editr1.data.types import ScoreItem, ScoreOutcome
from editr1.editor.grpo import train_grpo
from editr1.stages.runtime.context import StageContext
from tests.unit.stages.attempts import POINTS, digest_after, digest_of

EXPORT = "editr1.editor.policies.base.remove_origin"
Scorer = Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, str]:
    """Digests of undisturbed trainings, by the weights that are tuned."""
    return {}


@pytest.mark.parametrize(
    ("editor", "tune", "point"),
    # LoRA differs from full training in what is saved and exported, not in when an attempt ends.
    [("flux_folder", "full", point) for point in POINTS]
    + [("qwen_folder", "lora", "stopped"), ("qwen_folder", "lora", "export")],
)
def test_continued_training_commits_the_same_artifact(
    request: pytest.FixtureRequest, cases: Path, scorer: Scorer, small: GrpoConfig, tmp_path: Path,
    undisturbed: dict[str, str], editor: str, tune: str, point: str,
) -> None:  # fmt: skip
    config = small.model_copy(
        update={"tune": tune, "iterations": 3, "checkpoint_every": 1, "num_inference_steps": 2, "sde_window_size": 1}
    )
    start = request.getfixturevalue(editor)

    def body(context: StageContext) -> None:
        folder = context.output_folder("model")
        train_grpo(config, editor=start, cases=cases, scorer=scorer, output_dir=folder, hooks=context.hooks())
        context.commit("model", folder, "editor")

    job: dict[str, Any] = {"kind": "grpo", "key": "a" * 64}
    name = f"{editor}-{tune}"
    if name not in undisturbed:
        undisturbed[name] = digest_of(body, job, tmp_path / "whole")
    assert digest_after(body, job, tmp_path / "continued", point, 2, EXPORT) == undisturbed[name]
