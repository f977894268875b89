"""Check that the tokenizer, the chat template and the image processor of a verifier fit its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from PIL import Image
from transformers import AutoConfig, ProcessorMixin

from editr1.artifacts.weights import UnusableModel

_REMEDY: Final = "copy this file from the base model"
_FIELDS: Final = {
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}
"""Fields of the image processor which must have the same value as these fields of the model's ``vision_config``."""
_MESSAGE: Final = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it red?"}]}]


def check_processor(name: str | Path, processor: ProcessorMixin) -> None:
    """Render a short prompt and process a small image, so that a fault is found before a table is read or a model is loaded.

    Args:
        name: folder or Hugging Face Hub name of the verifier, for its settings and for messages.
        processor: processor of the verifier.

    Raises:
        UnusableModel: a file is missing or does not fit the model. The message names the file.
    """
    token = processor.image_token
    tokens = processor.tokenizer.tokenize(token)
    if tokens != [token]:
        raise UnusableModel(f"{name}: tokenizer.json: the tokenizer does not have the token {token}; {_REMEDY}")
    _check_template(name, processor)
    if (
        not Path(name).is_dir() or (Path(name) / "config.json").is_file()
    ):  # Otherwise, loading the model reports the folder.
        _check_image_processor(name, processor.image_processor)


def _check_template(name: str | Path, processor: ProcessorMixin) -> None:
    head = f"{name}: chat_template.jinja"
    if processor.chat_template is None:
        raise UnusableModel(f"{head}: the model has no chat template; {_REMEDY}")
    try:
        text = processor.apply_chat_template(_MESSAGE, add_generation_prompt=True)
    except Exception as error:  # A template can raise any exception.
        raise UnusableModel(f"{head}: the chat template cannot be used: {error}; {_REMEDY}") from error
    if processor.image_token not in text or "Is it red?" not in text:
        raise UnusableModel(f"{head}: the chat template omits the image or the text of a message; {_REMEDY}")


def _check_image_processor(name: str | Path, images: Any) -> None:
    head = f"{name}: preprocessor_config.json"
    vision = AutoConfig.from_pretrained(str(name)).vision_config
    for field, of_model in _FIELDS.items():
        found, expected = getattr(images, field, None), getattr(vision, of_model)
        if found != expected:
            raise UnusableModel(
                f"{head}: {field} is {found}, but {of_model} in the vision_config of config.json is {expected}; {_REMEDY}"
            )
    try:
        images(images=[Image.new("RGB", (64, 64))], return_tensors="pt")
    except Exception as error:  # The exceptions of the library depend on the fault.
        raise UnusableModel(f"{head}: an image cannot be processed: {error}; {_REMEDY}") from error
