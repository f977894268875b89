"""The gradient of each optimizer step equals one that is derived from the formulas, for every setting and micro-batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.editor.gradients import PASSES, check, derive, load, record, training, write_unequal_cases

LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def unequal_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unequal_cases(tmp_path_factory.mktemp("unequal"))


@pytest.mark.parametrize(
    ("changes", "micro_batch_size"),
    [
        ({}, 24),
        ({}, 6),
        ({}, 4),
        (PASSES, 6),
        (PASSES | {"update_every": "step", "advantage_std": "group"}, 4),
        (PASSES | {"beta": 0.5}, 24),
        (PASSES | {"beta": 0.5, "kl": "gaussian", "sde": "cps"}, 6),
        (PASSES | {"beta": 0.5, "kl": "velocity", "tune": "lora", "lora": LORA, "learning_rate": 1e-2}, 4),
        ({"sde": "cps", "cps_logprob": "public", "passes": 2, "trajectory_dtype": "bf16"}, 6),
        ({"sde_window_scope": "group", "gradient_checkpointing": True, "passes": 2}, 4),
        (PASSES | {"precision": "bf16-mixed", "learning_rate": 1e-2}, 6),
        (PASSES | {"precision": "bf16-mixed", "learning_rate": 1e-2, "beta": 0.5, "gradient_checkpointing": True}, 4),
        (PASSES | {"precision": "bf16-mixed", "learning_rate": 1e-2, "tune": "lora", "lora": LORA}, 24),
    ],
)
def test_gradients_and_metrics_follow_from_the_formulas(
    tmp_path: Path, flux_folder: Path, unequal_cases: Path, changes: dict[str, Any], micro_batch_size: int
) -> None:
    config = training(micro_batch_size=micro_batch_size, **changes)
    record(config, flux_folder, unequal_cases, tmp_path)
    recordings = load(tmp_path)
    derived = derive(recordings, config, flux_folder)
    differences = check(recordings, derived, config, tmp_path)
    print("largest relative difference of a gradient:", max(differences))
    if "clip_range" in changes:
        assert 0.0 < derived.clip_frac < 1.0
