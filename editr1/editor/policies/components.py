"""Load an editor pipeline, and reject it if the weights of any component are incomplete."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DiffusionPipeline, ModelMixin
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editr1.artifacts.weights import UnusableModel
from editr1.verifier.weights import explain_load_errors, load_weights

_LIBRARIES: Final = ("diffusers", "transformers")


def load_pipeline(folder: Path, dtype: torch.dtype, **given: Any) -> Any:
    """Load the pipeline in ``folder`` with weights in ``dtype``. Components in ``given`` are not loaded.

    diffusers does not report the weights of a pipeline that it initialized at random. Each model, including text
    encoders and the VAE, is therefore loaded separately.

    Raises:
        UnusableModel: A component is missing or cannot be loaded, or its weights are incomplete; see :func:`load_weights`.
    """
    loader: Any = DiffusionPipeline
    with explain_load_errors(folder):
        models = _load_models(folder, dtype, set(given))
        pipeline = loader.from_pretrained(folder, dtype=dtype, use_safetensors=True, **models, **given)
    optional = set(pipeline._optional_components)
    absent = [name for name, component in pipeline.components.items() if component is None and name not in optional]
    if absent:
        raise UnusableModel(f"{folder}: the pipeline has no {', '.join(absent)}; use a complete pipeline folder")
    return pipeline


def _load_models(folder: Path, dtype: torch.dtype, skipped: set[str]) -> dict[str, Any]:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    models = {}
    for name, entry in index.items():
        if name in skipped or not isinstance(entry, list) or len(entry) != 2 or entry[0] not in _LIBRARIES:
            continue
        library, class_name = entry
        model_class = getattr(importlib.import_module(library), class_name)
        if issubclass(model_class, PreTrainedTokenizerBase):
            _check_vocabulary(folder / name, model_class)
        if issubclass(model_class, PreTrainedModel):
            options = {"dtype": dtype, "ignore_mismatched_sizes": True}  # load_weights reports mismatches.
        elif issubclass(model_class, ModelMixin):
            options = {"torch_dtype": dtype}
        else:
            continue
        models[name] = load_weights(model_class, folder / name, **options)
    return models


def _check_vocabulary(folder: Path, tokenizer_class: Any) -> None:
    """Raise UnusableModel if ``folder`` has no vocabulary.

    Without one, transformers would build a tokenizer with an empty vocabulary.
    """
    names = sorted({"tokenizer.json", *tokenizer_class.vocab_files_names.values()})
    if not any((folder / name).is_file() for name in names):
        raise UnusableModel(f"{folder}: contains none of the files {', '.join(names)}; use a complete pipeline folder")
