"""Refusal of editor pipelines with a component whose weights are incomplete, damaged or not safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editr1.artifacts.weights import UnusableModel
from editr1.editor.policies import load_policy
from editr1.errors import ExitCode

COMPONENTS = {
    "flux_folder": ["transformer", "vae", "text_encoder", "text_encoder_2"],
    "qwen_folder": ["transformer", "vae", "text_encoder"],
}
EVERY = [(fixture, component) for fixture, names in COMPONENTS.items() for component in names]


def copied(request: pytest.FixtureRequest, fixture: str, tmp_path: Path) -> Path:
    folder = tmp_path / "editor"
    shutil.copytree(request.getfixturevalue(fixture), folder)
    return folder


def weight_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


@pytest.mark.parametrize("fault", ["missing", "not part of the model", "another shape", "NaN or infinity"])
@pytest.mark.parametrize(("fixture", "component"), EVERY)
def test_component_with_incomplete_weights_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, fixture: str, component: str, fault: str
) -> None:
    folder = copied(request, fixture, tmp_path)
    path = weight_file(folder / component)
    weights = load_file(path)
    name = (
        next(n for n, w in sorted(weights.items()) if w.ndim == 2 and "norm" not in n and "embed" not in n)
        if component != "vae"
        else sorted(weights)[0]
    )
    changed = {
        "missing": {n: w for n, w in weights.items() if n != name},
        "not part of the model": weights | {"extra": torch.zeros(2)},
        "another shape": weights | {name: weights[name][:-1].contiguous()},
        "NaN or infinity": weights | {name: weights[name] * float("nan")},
    }[fault]
    save_file(changed, path, metadata={"format": "pt"})
    with pytest.raises(UnusableModel) as raised:
        load_policy(str(folder))
    assert str(folder / component) in str(raised.value)
    assert ("extra" if fault == "not part of the model" else name.split(".")[-2]) in str(raised.value)
    assert raised.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(("fixture", "component"), EVERY)
def test_component_of_pickled_weights_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, fixture: str, component: str
) -> None:
    folder = copied(request, fixture, tmp_path)
    path = weight_file(folder / component)
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(UnusableModel, match=rf"{component}/{path.stem}\.bin"):
        load_policy(str(folder))


@pytest.mark.parametrize("part", ["model_index.json", "vae/config.json", "text_encoder/model.safetensors"])
def test_missing_part_of_a_pipeline_is_refused(flux_folder: Path, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "editor"
    shutil.copytree(flux_folder, folder)
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UnusableModel, match="cannot be loaded") as raised:
        load_policy(str(folder))
    assert str(folder) in str(raised.value)


def test_pipeline_that_declares_no_vae_is_refused(flux_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "editor"
    shutil.copytree(flux_folder, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": [None, None]}))
    with pytest.raises(UnusableModel, match="vae"):
        load_policy(str(folder))


@pytest.mark.parametrize("tokenizer", ["tokenizer", "tokenizer_2"])
def test_tokenizer_without_a_vocabulary_is_refused(flux_folder: Path, tmp_path: Path, tokenizer: str) -> None:
    folder = tmp_path / "editor"
    shutil.copytree(flux_folder, folder)
    (folder / tokenizer / "tokenizer.json").unlink()
    with pytest.raises(UnusableModel, match="contains none of the files") as raised:
        load_policy(str(folder))
    assert str(folder / tokenizer) in str(raised.value)
