"""Rebuilding the small verifier's checkpoint."""

from pathlib import Path

import torch

from editr1.shapes.train_verifier import train_verifier
from editr1.verifier.model import folder_digest


def test_a_training_that_goes_on_after_a_round_gives_what_one_call_gives(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    quick = {"batch_size": 4, "warmup": 1, "size": "small"}
    figures = train_verifier(tmp_path / "whole", rounds=(2, 2), **quick)  # type: ignore[arg-type]
    train_verifier(tmp_path / "parts", rounds=(2,), **quick)  # type: ignore[arg-type]
    train_verifier(tmp_path / "parts", rounds=(2, 2), first_round=1, **quick)  # type: ignore[arg-type]
    assert folder_digest(tmp_path / "whole") == folder_digest(tmp_path / "parts")
    assert set(figures) == {"parsed", "follow_0", "follow_1", "keep_0", "keep_1", "quality_0", "quality_1"}
