"""The files of a verifier must fit each other. A fault is found before a table is read or weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from editr1.artifacts.weights import UnusableModel
from editr1.config.loader import ConfigError
from editr1.verifier.model import load_processing

SHIPPED = Path(__file__).parents[3] / "editr1/shapes/assets/verifier"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_shipped_verifier_is_accepted(folder: Path) -> None:
    processor, _ = load_processing(folder)
    assert processor.tokenizer.padding_side == "left"


def test_missing_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(UnusableModel, match=r"model: .*tokenizer"):
        load_processing(folder)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the model has no chat template"),
        ("{% for x in %}", "the chat template cannot be used"),
        ("{{ raise_exception('no images') }}", "no images"),
        ("hello", "omits the image or the text"),
    ],
)
def test_chat_template_that_cannot_be_used(folder: Path, template: str | None, message: str) -> None:
    path = folder / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    with pytest.raises(UnusableModel, match=rf"model: chat_template\.jinja: .*{message}"):
        load_processing(folder)


@pytest.mark.parametrize("fields", [{"patch_size": 0}, {"patch_size": 14}, {"merge_size": 3}, {"image_mean": [0.5]}])
def test_image_processor_that_does_not_fit_the_model(folder: Path, fields: dict[str, object]) -> None:
    change(folder / "preprocessor_config.json", **fields)
    with pytest.raises(UnusableModel, match=r"model: preprocessor_config\.json: "):
        load_processing(folder)


def test_damaged_prompt_template_is_named(folder: Path) -> None:
    (folder / "editr1_prompt.json").write_text("{")
    with pytest.raises(ConfigError, match=r"editr1_prompt\.json: not a valid prompt template: Invalid JSON") as caught:
        load_processing(folder)
    assert "errors.pydantic.dev" not in str(caught.value)
