"""Training of the small verifier's base checkpoint."""

from pathlib import Path

import torch

from editr1.shapes.train_verifier import train_verifier
from editr1.verifier.model import folder_digest


def test_rounds_in_separate_calls_give_the_same_checkpoint_as_one_call(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    quick = {"batch_size": 4, "warmup": 1, "size": "small"}
    metrics = train_verifier(tmp_path / "whole", rounds=(2, 2), **quick)  # type: ignore[arg-type]
    train_verifier(tmp_path / "parts", rounds=(2,), **quick)  # type: ignore[arg-type]
    train_verifier(tmp_path / "parts", rounds=(2, 2), first_round=1, **quick)  # type: ignore[arg-type]
    assert folder_digest(tmp_path / "whole") == folder_digest(tmp_path / "parts")
    assert set(metrics) == {"parsed", "follow_0", "follow_1", "keep_0", "keep_1", "quality_0", "quality_1"}
