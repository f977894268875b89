"""Refusal of verifiers whose weights are incomplete, damaged or not safetensors."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from editr1.artifacts.weights import UnusableModel
from editr1.errors import ExitCode
from editr1.serving.run import main as serve
from editr1.verifier.model import load_verifier
from editr1.verifier.training import ResumeWeightsMixin

Weights = dict[str, Tensor]
O_PROJ = "layers.1.self_attn.o_proj"


def change(folder: Path, target: Path, edit: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(folder, target)
    weights = edit(load_file(target / "model.safetensors"))
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def without_layer(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if O_PROJ not in name}


def from_peft(weights: Weights) -> Weights:
    return {f"base_model.model.{name}": weight for name, weight in weights.items()}


def with_another_tensor(weights: Weights) -> Weights:
    return weights | {"model.extra.weight": torch.zeros(2)}


def with_another_shape(weights: Weights) -> Weights:
    return {name: weight[:-1].contiguous() if O_PROJ in name else weight for name, weight in weights.items()}


def with_nan(weights: Weights) -> Weights:
    return {name: weight * float("nan") if O_PROJ in name else weight for name, weight in weights.items()}


def with_infinity(weights: Weights) -> Weights:
    return {name: weight * float("inf") if O_PROJ in name else weight for name, weight in weights.items()}


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (without_layer, rf"1 tensor is missing, first .*{O_PROJ}"),
        (from_peft, "tensors are missing, first .*; .*not part of the model, first .*base_model"),
        (with_another_tensor, "1 tensor is not part of the model, first .*extra"),
        (with_another_shape, rf"1 tensor is of another shape, first .*{O_PROJ}"),
        (with_nan, rf"1 of \d+ tensors contain NaN or infinity, for example .*{O_PROJ}"),
        (with_infinity, rf"1 of \d+ tensors contain NaN or infinity, for example .*{O_PROJ}"),
    ],
)
def test_checkpoint_that_does_not_match_its_architecture_is_refused(
    tiny: Path, tmp_path: Path, edit: Callable[[Weights], Weights], fault: str
) -> None:
    folder = change(tiny, tmp_path / "model", edit)
    with pytest.raises(UnusableModel, match=fault) as raised:
        load_verifier(folder)
    assert str(folder) in str(raised.value)
    assert raised.value.exit_code == ExitCode.INPUT


def test_pickled_weights_are_refused_with_the_name_of_the_file(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnusableModel, match=r"pytorch_model\.bin"):
        load_verifier(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_missing_file_is_refused_with_the_folder(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / name).unlink()
    with pytest.raises(UnusableModel, match="the model cannot be loaded") as raised:
        load_verifier(folder)
    assert str(folder) in str(raised.value)


def test_unreadable_config_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UnusableModel, match="cannot be loaded"):
        load_verifier(folder)


def test_adapter_in_a_folder_with_merged_weights_is_not_applied_again(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor, _ = load_verifier(tiny)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "model")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        loaded, _, _ = load_verifier(tmp_path / "model")
    assert any("adapter in this folder is not applied" in record.message for record in caplog.records)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    original = load_file(tiny / "model.safetensors")
    name = next(name for name in saved if O_PROJ in name)
    assert not torch.equal(saved[name], original[name])
    state = loaded.state_dict()
    assert torch.equal(state[next(key for key in state if O_PROJ in key)], saved[name])


def test_folder_with_only_an_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    model, processor, _ = load_verifier(tiny)
    get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"])).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    with pytest.raises(UnusableModel, match="contains an adapter"):
        load_verifier(tmp_path / "model")


def test_resumed_adapter_with_missing_tensors_is_refused(tiny: Path, tmp_path: Path) -> None:
    class Resumed(ResumeWeightsMixin):
        class accelerator:
            unwrap_model = staticmethod(lambda model: model)

    model = get_peft_model(load_verifier(tiny)[0], LoraConfig(r=2, target_modules=["o_proj"], init_lora_weights=False))
    expected = {name: weight.clone() for name, weight in model.state_dict().items() if "lora" in name}
    model.save_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        if "lora" in name:
            weight.zero_()
    Resumed()._load_from_checkpoint(str(tmp_path), model)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in expected.items())
    saved = load_file(tmp_path / "adapter_model.safetensors")
    dropped = sorted(saved)[0]
    saved.pop(dropped)
    save_file(saved, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableModel, match=r"1 tensor is missing, first .*lora"):
        Resumed()._load_from_checkpoint(str(tmp_path), model)


def test_reward_server_refuses_an_incomplete_checkpoint(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = change(tiny, tmp_path / "model", without_layer)
    assert serve([str(folder), "--set", "port=0", "--set", "device=cpu"]) == ExitCode.INPUT
    assert O_PROJ in caplog.text + capfd.readouterr().err
