"""The processor of Qwen-Image-Edit for environments without torchvision.

transformers builds ``Qwen2VLProcessor`` only together with its video processor, which needs torchvision. Editing does not
use videos.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils.import_utils import is_torchvision_available

from editr1.verifier.model import make_processor, save_processor


def load_image_processor(pipeline_folder: Path) -> Any | None:
    """Load a processor for images and text, or return None if torchvision is installed and diffusers can load its own."""
    if is_torchvision_available():
        return None
    folder = str(pipeline_folder / "processor")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor: Any = AutoImageProcessor
    return make_processor(image_processor.from_pretrained(folder), tokenizer, tokenizer.chat_template or "")


def restore_processor(processor: Any, pipeline_folder: Path) -> None:
    """Set the processor of a saved pipeline folder to ``Qwen2VLProcessor`` again, so that diffusers can load the folder."""
    if is_torchvision_available():
        return
    shutil.rmtree(pipeline_folder / "processor")
    save_processor(processor, pipeline_folder / "processor")
    path = pipeline_folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
