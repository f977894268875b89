"""Qwen-Image-Edit's picture processor where torchvision is missing.

transformers builds ``Qwen2VLProcessor`` only with its video half, which needs torchvision; editing never uses it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils.import_utils import is_torchvision_available

from editr1.verifier.model import make_processor, save_processor


def load_picture_processor(pipeline_folder: Path) -> Any | None:
    """A processor for pictures and text from ``pipeline_folder/processor``; None where diffusers can load its own."""
    if is_torchvision_available():
        return None
    folder = str(pipeline_folder / "processor")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images: Any = AutoImageProcessor
    return make_processor(images.from_pretrained(folder), tokenizer, tokenizer.chat_template or "")


def restore_processor(processor: Any, pipeline_folder: Path) -> None:
    """Make a saved pipeline folder name the library's processor again, so that plain diffusers loads it."""
    if is_torchvision_available():
        return
    shutil.rmtree(pipeline_folder / "processor")
    save_processor(processor, pipeline_folder / "processor")
    path = pipeline_folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
