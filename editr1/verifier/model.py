"""Load and save a verifier: a Qwen2.5-VL model with its processor and prompt template.

SFT, GCPO and the serving engine use :func:`load_verifier`, which works with and without torchvision. transformers'
``Qwen2_5_VLProcessor`` requires a video processor, which requires torchvision. A verifier reads only images, so without
torchvision this module uses a processor for images only.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.image_utils import SizeDict
from transformers.utils import cached_file
from transformers.utils.import_utils import is_torchvision_available

from editr1.artifacts.export import remove_origin
from editr1.artifacts.weights import check_model_folder
from editr1.config.loader import ConfigError
from editr1.verifier.processor_check import check_processor
from editr1.verifier.prompt import PROMPT_FILE, PromptTemplate
from editr1.verifier.weights import explain_load_errors, load_weights

DType = Literal["auto", "float32", "bfloat16", "float16"]

_KEPT_GENERATION_SETTINGS: Final = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "use_cache",
    "cache_implementation",
    "output_attentions",
    "output_hidden_states",
    "transformers_version",
    "_from_model_config",
)
_PROCESSOR_CLASS: Final = "Qwen2_5_VLProcessor"
_PROCESSOR_FILES: Final = ("processor_config.json", "video_preprocessor_config.json")


class PictureProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]
    """Processor of Qwen2.5-VL without a video processor, for environments without torchvision.

    The class must not be renamed, because checkpoints contain its name in their tokenizer settings.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.video_token = "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def make_processor(image_processor: Any, tokenizer: Any, chat_template: str) -> ProcessorMixin:
    """Build a Qwen2.5-VL processor from its components. It supports videos only if torchvision is installed."""
    if is_torchvision_available():
        from transformers import Qwen2VLVideoProcessor

        video = Qwen2VLVideoProcessor(
            patch_size=image_processor.patch_size,
            merge_size=image_processor.merge_size,
            temporal_patch_size=image_processor.temporal_patch_size,
        )
        return Qwen2_5_VLProcessor(image_processor, tokenizer, video, chat_template=chat_template)
    return PictureProcessor(image_processor, tokenizer, chat_template=chat_template)


def load_processor(name: str | Path, template: PromptTemplate) -> ProcessorMixin:
    """Load a processor from a folder or the Hugging Face Hub. Set left padding and the image size limits of ``template``."""
    with explain_load_errors(name):
        if is_torchvision_available():
            processor = AutoProcessor.from_pretrained(str(name))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(name))
            processor = PictureProcessor(
                AutoImageProcessor.from_pretrained(str(name)), tokenizer, chat_template=tokenizer.chat_template
            )
    processor.tokenizer.padding_side = "left"
    processor.image_processor.size = SizeDict(shortest_edge=template.min_pixels, longest_edge=template.max_pixels)
    return processor


def load_template(name: str | Path) -> PromptTemplate:
    """Load a prompt template from a verifier's folder or the Hugging Face Hub. Return the default if there is none."""
    if Path(name).is_dir():
        return PromptTemplate.load(name)
    found = cached_file(
        str(name),
        PROMPT_FILE,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return PromptTemplate() if found is None else PromptTemplate.load(Path(found).parent)


def context_length(name: str | Path) -> int:
    """Return the maximum number of tokens of a prompt and its trace, from the settings of a verifier. No weights are loaded.

    Raises UnusableModel if the settings are damaged.
    """
    with explain_load_errors(name):
        return int(AutoConfig.from_pretrained(str(name)).get_text_config().max_position_embeddings)


def load_processing(name: str | Path) -> tuple[ProcessorMixin, PromptTemplate]:
    """Load the processor and the prompt template of a verifier, which are needed to render its prompts and count their tokens.

    No weights are loaded. The arguments and errors are those of :func:`load_verifier`.
    """
    if Path(name).is_dir():
        check_model_folder(name)
    template = load_template(name)
    _check_architecture(Path(name))
    processor = load_processor(name, template)
    with explain_load_errors(name):
        check_processor(name, processor)
    return processor, template


def load_verifier(
    name: str | Path, dtype: DType = "auto", device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin, PromptTemplate]:
    """Load the model, the processor and the prompt template of a verifier.

    Args:
        name: folder or Hugging Face Hub name of a Qwen2.5-VL checkpoint. If it has no ``editr1_prompt.json``, the default
            prompt template is used.
        dtype: data type of the weights; "auto" keeps that of the checkpoint.
        device: device of the weights.

    Returns:
        The model in eval mode and without sampling defaults (see :func:`remove_sampling_defaults`), the processor with left
        padding, and the prompt template.

    Raises:
        ConfigError: the checkpoint is not a Qwen2.5-VL model, or its prompt template is invalid.
        UnusableModel: the folder has pickled files, a file is damaged, tensors are missing, unexpected or have the
            wrong shape, or a tensor contains NaN or infinity.
    """
    processor, template = load_processing(name)
    return load_model(name, dtype, device), processor, template


def load_model(name: str | Path, dtype: DType = "auto", device: str | torch.device = "cpu") -> PreTrainedModel:
    """Load the model of a verifier in eval mode. The arguments and errors are those of :func:`load_verifier`."""
    if Path(name).is_dir():
        check_model_folder(name)
    _check_architecture(Path(name))
    model = load_weights(
        Qwen2_5_VLForConditionalGeneration,
        name,
        dtype="auto" if dtype == "auto" else getattr(torch, dtype),
        ignore_mismatched_sizes=True,  # load_weights reports these tensors.
    )
    remove_sampling_defaults(model)
    return model.to(device).eval()


def remove_sampling_defaults(model: PreTrainedModel) -> None:
    """Reset the generation settings of a checkpoint, except for token ids, to values that have no effect.

    Qwen2.5-VL, for example, comes with a repetition penalty and top-k. For every parameter that a caller omits,
    ``generate`` and servers such as vLLM use these settings, so traces would not be sampled with the caller's
    settings alone.
    """
    config = copy.deepcopy(model.generation_config)
    for name, value in GenerationConfig().to_dict().items():
        if name not in _KEPT_GENERATION_SETTINGS:
            setattr(config, name, value)
    model.generation_config = config


def use_cpu_attention(model: PreTrainedModel) -> None:
    """Use eager attention in the language model, which makes training on a CPU faster.

    On CPUs, the backward pass of torch's fused attention takes several times as long as that of plain matrix
    products. It took 38 % of the time of an SFT step of the small verifier. Without gradients, fused attention is
    faster.
    """
    model.set_attn_implementation({"text_config": "eager"})


def save_verifier(model: PreTrainedModel, processor: ProcessorMixin, template: PromptTemplate, folder: Path) -> Path:
    """Write a verifier folder that transformers' Auto classes, vLLM and :func:`load_verifier` can load.

    The files are the same with and without torchvision, because the settings of the image processor are always written to a
    separate file instead of a combined processor file. The folder has no sampling defaults (see
    :func:`remove_sampling_defaults`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_sampling_defaults(model)
    model.save_pretrained(folder)
    save_processor(processor, folder)
    template.save(folder)
    remove_origin(folder)
    return folder


def save_processor(processor: ProcessorMixin, folder: Path) -> None:
    """Write the tokenizer, the image processor and the chat template. See :func:`save_verifier`."""
    if processor.tokenizer.chat_template is None:
        processor.tokenizer.chat_template = processor.chat_template
    # The name of the class, which transformers writes only for a tokenizer that was saved with its processor before.
    processor.tokenizer._set_processor_class(_PROCESSOR_CLASS)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["image_processor_type"] = "Qwen2VLImageProcessor"
    settings["processor_class"] = _PROCESSOR_CLASS
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in _PROCESSOR_FILES:
        (folder / name).unlink(missing_ok=True)


def folder_digest(folder: str | Path) -> str:
    """Return the digest of ``folder``: ``sha256:<hex>`` over the relative paths and the contents of all files in it."""
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; check the path")
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda item: item.relative_to(root).as_posix()):
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _check_architecture(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        return
    with explain_load_errors(folder):
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if found != "qwen2_5_vl":
        raise ConfigError(f"{path}: model_type is {found!r}; use a Qwen2.5-VL checkpoint ('qwen2_5_vl')")
