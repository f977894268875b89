"""Generation settings of a base checkpoint have no influence on traces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from editr1.config.gcpo import GcpoConfig
from editr1.telemetry import TrainHooks
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.model import load_verifier, remove_sampling_defaults, save_verifier

QWEN = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.1, "top_k": 1, "top_p": 0.001}
STRONG = QWEN | {"repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "min_p": 0.99, "typical_p": 0.1}


def with_settings(folder: Path, settings: dict[str, object], to: Path) -> Path:
    """Copy a verifier folder and add ``settings`` to its generation settings."""
    shutil.copytree(folder, to)
    file = to / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return to


@pytest.mark.parametrize("settings", [QWEN, STRONG, QWEN | {"do_sample": False}], ids=["Qwen", "strong", "greedy"])
def test_saved_folder_has_no_sampling_defaults(tiny: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    base = with_settings(tiny, settings, tmp_path / "base")
    save_verifier(*load_verifier(base), tmp_path / "trained")
    saved = (tmp_path / "trained" / "generation_config.json").read_text()
    assert json.loads(saved) == json.loads((tiny / "generation_config.json").read_text())


def test_model_that_was_loaded_otherwise_is_saved_without_sampling_defaults(tiny: Path, tmp_path: Path) -> None:
    base = with_settings(tiny, STRONG, tmp_path / "base")
    _, processor, template = load_verifier(tiny)
    save_verifier(Qwen2_5_VLForConditionalGeneration.from_pretrained(base), processor, template, tmp_path / "trained")
    assert not set(STRONG) & set(json.loads((tmp_path / "trained" / "generation_config.json").read_text()))


def test_token_ids_are_kept(tiny: Path) -> None:
    model, processor, _ = load_verifier(tiny)
    model.generation_config.top_k = 1
    remove_sampling_defaults(model)
    assert model.generation_config.top_k is None
    assert model.generation_config.eos_token_id == [processor.tokenizer.eos_token_id]
    assert model.generation_config.suppress_tokens


def test_rollouts_of_gcpo_ignore_settings_of_the_base(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    config = GcpoConfig(
        rollouts=1,
        pairs_per_rollout=2,
        num_traces=4,
        max_new_tokens=60,
        warmup_steps=0,
        learning_rate=1e-3,
        device="cpu",
    )
    pairs = write_pairs(4)
    trained = []
    for name, base in (("plain", writer), ("strong", with_settings(writer, STRONG, tmp_path / "base"))):
        train_gcpo(config, model=base, pairs=pairs, output_dir=tmp_path / name, hooks=TrainHooks())
        trained.append(load_file(tmp_path / name / "model.safetensors"))
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
