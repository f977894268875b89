"""The gradients of SFT and GCPO on one process are those of the formulas, whatever the layout of a batch.

``tests/integration/test_verifier_gradients.py`` does the same on two processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editr1.config.gcpo import GcpoConfig
from editr1.config.sft import SftConfig
from editr1.config.verifier import LoraSettings
from editr1.telemetry import Progress, TrainHooks
from tests.unit.verifier.gradient_data import TRACES, write_gradient_pairs, write_gradient_rows
from tests.unit.verifier.gradients import (
    LARGEST_DIFFERENCE,
    gcpo_reference,
    gcpo_steps,
    relative_difference,
    sft_reference,
    sft_steps,
)

SFT = SftConfig(max_steps=1, batch_size=24, warmup_steps=0, max_grad_norm=0.0, device="cpu")
GCPO = GcpoConfig(
    rollouts=1, passes=2, pairs_per_rollout=6, num_traces=2, warmup_steps=0, max_grad_norm=0.0, learning_rate=1e-3,
    device="cpu",
)  # fmt: skip
LANGUAGE = LoraSettings(rank=4, alpha=6.0)
ALL = LoraSettings(rank=4, alpha=6.0, targets="all")


def _name(changes: dict[str, Any]) -> str:
    """Return the id of a test case, in which an adapter is named by the layers that it changes."""
    return ", ".join(f"{name} {getattr(value, 'targets', value)}" for name, value in changes.items())


@pytest.mark.parametrize("precision", LARGEST_DIFFERENCE)
@pytest.mark.parametrize("mask_prompt", [True, False])
def test_sft_gradient_is_that_of_the_mean_over_all_trained_tokens(
    tiny: Path, tmp_path: Path, precision: str, mask_prompt: bool
) -> None:
    _compare_sft(tiny, tmp_path, {"precision": precision, "mask_prompt": mask_prompt})


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": LANGUAGE},
        {"lora": ALL},
        {"lora": ALL, "precision": "bf16-mixed"},
        {"lora": LANGUAGE, "mask_prompt": False},
        {"lora": ALL, "gradient_checkpointing": True},
    ],
    ids=_name,
)
def test_sft_gradient_of_adapters_is_that_of_the_formula(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    _compare_sft(tiny, tmp_path, changes)


@pytest.mark.parametrize("precision", LARGEST_DIFFERENCE)
@pytest.mark.parametrize("accumulation", [1, 4, 6])
def test_gcpo_gradient_is_that_of_the_paper_in_both_passes(
    tiny: Path, tmp_path: Path, precision: str, accumulation: int
) -> None:
    _compare_gcpo(tiny, tmp_path, {"precision": precision}, accumulation)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.7},
        {"tie_credit": 0.5},
        {"clip_range": 0.02},
        {"beta": 0.1},
        {"passes": 1},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_gcpo_gradient_is_that_of_the_paper_with_other_settings(
    tiny: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    _compare_gcpo(tiny, tmp_path, changes, accumulation=4)


@pytest.mark.parametrize("accumulation", [1, 4, 6])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_gcpo_gradient_of_adapters_is_that_of_the_paper_in_both_passes(
    tiny: Path, tmp_path: Path, beta: float, accumulation: int
) -> None:
    _compare_gcpo(tiny, tmp_path, {"lora": LANGUAGE, "beta": beta}, accumulation)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": ALL},
        {"lora": ALL, "beta": 0.1},
        {"lora": ALL, "beta": 0.1, "precision": "bf16-mixed", "learning_rate": 1e-4},
        {"lora": LANGUAGE, "beta": 0.1, "temperature": 0.7},
        {"lora": LANGUAGE, "beta": 0.1, "clip_range": 0.02},
        {"lora": ALL, "beta": 0.1, "passes": 1},
        {"lora": ALL, "beta": 0.1, "gradient_checkpointing": True},
    ],
    ids=_name,
)
def test_gcpo_gradient_of_adapters_is_that_of_the_paper_with_other_settings(
    tiny: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    _compare_gcpo(tiny, tmp_path, changes, accumulation=4)


def test_sft_batches_do_not_depend_on_the_micro_batch_size(tiny: Path, tmp_path: Path) -> None:
    rows = write_gradient_rows(tmp_path, 11)  # three rows remain in each epoch
    losses = []
    for micro_batch_size in (8, 2, 1):
        out = tmp_path / f"out-{micro_batch_size}"
        config = SFT.model_copy(
            update={"batch_size": 8, "micro_batch_size": micro_batch_size, "max_steps": None, "epochs": 3.0}
        )
        hooks = TrainHooks(progress=Progress(tmp_path / f"progress-{micro_batch_size}.jsonl"))
        steps = sft_steps(config, tiny, rows, out, hooks)
        assert len(steps) == 3
        losses.append([relative_difference(step.gradient, steps[0].gradient) for step in steps])
    assert losses[0][1] > 0.1  # each epoch has other rows
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)


def _compare_sft(model: Path, folder: Path, changes: dict[str, Any]) -> None:
    rows = write_gradient_rows(folder)
    for accumulation in (1, 4, 6):
        config = SFT.model_copy(update={"micro_batch_size": 24 // accumulation, **changes})
        (step,) = sft_steps(config, model, rows, folder / f"out-{accumulation}")
        expected = sft_reference(config, model, rows, step.weights)
        difference = relative_difference(step.gradient, expected)
        print(f"sft, {_name(changes)}, 1 x {accumulation}: {difference:.1e}")
        assert difference < LARGEST_DIFFERENCE[config.precision]


def _compare_gcpo(model: Path, folder: Path, changes: dict[str, Any], accumulation: int) -> None:
    pairs = write_gradient_pairs(folder)
    config = GCPO.model_copy(update={"micro_batch_size": 24 // accumulation, **changes})
    steps = gcpo_steps(config, model, pairs, folder / "out", TRACES)
    assert len(steps) == config.passes
    for number, step in enumerate(steps, start=1):
        expected = gcpo_reference(config, model, pairs, TRACES, steps[0].weights, step.weights)
        difference = relative_difference(step.gradient, expected)
        print(f"gcpo, {_name(changes)}, 1 x {accumulation}, pass {number}: {difference:.1e}")
        assert difference < LARGEST_DIFFERENCE[config.precision]
