"""A continued training of the verifier commits the artifact of an undisturbed one, wherever it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import open_store
from editr1.stages import gcpo, sft
from tests.unit.stages.attempts import POINTS, digest_after, digest_of

SFT = {
    "max_steps": 3,
    "batch_size": 4,
    "checkpoint_every": 1,
    "warmup_steps": 1,
    "learning_rate": 1e-3,
    "device": "cpu",
}
LORA = SFT | {"lora": {"rank": 4, "targets": "all", "keep_adapter": True}}
GCPO = {
    "rollouts": 3, "pairs_per_rollout": 2, "num_traces": 2, "checkpoint_every": 1, "warmup_steps": 0, "max_new_tokens": 64,
    "learning_rate": 1e-3, "max_rollouts_without_signal": 0, "device": "cpu",
}  # fmt: skip
EXPORT = "editr1.verifier.model.save_processor"
CHECKPOINT = 2


def job(root: Path, kind: str, config: dict[str, Any], **tables: Path | str) -> dict[str, Any]:
    """Commit the inputs of a stage to a store below ``root``, and return the fields of its job."""
    store = open_store((root / "store").as_uri())
    inputs = {}
    for name, path in tables.items():
        folder = Path(path)
        if folder.is_file():
            folder = root / name
            folder.mkdir()
            shutil.copy2(path, folder)
        inputs[name] = store.commit(folder, kind="import", stage="push").digest
    return {"kind": kind, "key": "a" * 64, "inputs": inputs, "config": config}


def copied(root: Path, folder: Path) -> Path:
    """Return a folder with a copy of the store that has the inputs only."""
    shutil.copytree(root / "store", folder / "store")
    return folder


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, str]:
    """Digests of undisturbed trainings, by name of the training."""
    return {}


@pytest.mark.parametrize(
    ("name", "point"),
    # LoRA differs from full training in what is saved and exported, not in when an attempt ends.
    [(name, point) for name in ("sft", "gcpo") for point in POINTS] + [("lora", "stopped"), ("lora", "export")],
)
def test_continued_training_commits_the_same_artifact(
    tiny: Path, write_rows: Callable[..., Path], write_pairs: Callable[..., Path], request: pytest.FixtureRequest,
    tmp_path: Path, undisturbed: dict[str, str], name: str, point: str,
) -> None:  # fmt: skip
    root = tmp_path / "inputs"
    root.mkdir()
    if name == "gcpo":
        body = gcpo.body
        fields = job(root, "gcpo", GCPO, pairs=write_pairs(6), model=request.getfixturevalue("writer"))
    else:
        body = sft.body
        fields = job(root, "sft", SFT if name == "sft" else LORA, rows=write_rows(12), model=tiny)
    if name not in undisturbed:
        undisturbed[name] = digest_of(body, fields, copied(root, tmp_path / "whole"))
    folder = copied(root, tmp_path / "continued")
    assert digest_after(body, fields, folder, point, CHECKPOINT, EXPORT) == undisturbed[name]
