"""Load and save the processor of Qwen-Image-Edit without torchvision.

transformers can build ``Qwen2VLProcessor`` only with a video processor, which requires torchvision. Image editing does not
need the video processor.
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
    """Load a processor for images and text that does not support videos.

    Return None if torchvision is installed, because diffusers can then load the original processor.
    """
    if is_torchvision_available():
        return None
    folder = str(pipeline_folder / "processor")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor: Any = AutoImageProcessor
    return make_processor(image_processor.from_pretrained(folder), tokenizer, tokenizer.chat_template or "")


def restore_processor(processor: Any, pipeline_folder: Path) -> None:
    """Save ``processor`` in a pipeline folder as a ``Qwen2VLProcessor``, so that diffusers can load the folder."""
    if is_torchvision_available():
        return
    shutil.rmtree(pipeline_folder / "processor")
    save_processor(processor, pipeline_folder / "processor")
    path = pipeline_folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
