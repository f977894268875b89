"""Training on ground-truth rewards improves the shipped editor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

import editr1
from editr1.config.grpo import GrpoConfig
from editr1.data.images import decode_image
from editr1.data.tables import write_table
from editr1.data.types import EditCase, Scored, ScoreItem, ScoreOutcome
from editr1.editor.grpo import train_grpo
from editr1.editor.policies import load_policy
from editr1.editor.sample import EditSettings, edit_images
from editr1.shapes.cases import generate_cases
from editr1.shapes.truth import true_score

BASE = Path(editr1.__file__).parent / "shapes" / "assets" / "editor"


def true_scores(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
    return [
        Scored(
            score=true_score(item.source, item.instruction, decode_image(item.edited.data)).score,
            verdicts=(),
            model_digest="ground-truth",
        )
        for item in items
    ]


def mean_true_score(folder: Path, cases: Sequence[EditCase]) -> float:
    edits = edit_images(
        load_policy(str(folder)),
        [decode_image(case.source.data) for case in cases],
        [case.instruction for case in cases],
        EditSettings(num_inference_steps=8, resolution=32, batch_size=64),
    )
    return mean(true_score(case.source, case.instruction, edit).score for case, edit in zip(cases, edits, strict=True))


def test_twenty_iterations_on_ground_truth_gain_half_a_point(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_table(tmp_path / "cases.parquet", generate_cases(200, 5, "train", with_principles=True), EditCase)
    held_out = generate_cases(300, 5, "held-out")
    config = GrpoConfig(iterations=20, resolution=32, ema_decay=0.8)
    metrics = train_grpo(
        config, editor=BASE, cases=tmp_path / "cases.parquet", scorer=true_scores, output_dir=tmp_path / "editor"
    )
    assert metrics["failed"] == 0
    assert mean_true_score(tmp_path / "editor", held_out) > mean_true_score(BASE, held_out) + 0.5
