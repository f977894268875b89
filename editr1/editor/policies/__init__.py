"""Editor policies: wrappers of diffusers editing pipelines with which single denoising steps can be sampled and trained."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from editr1.artifacts.weights import check_model_folder
from editr1.config.loader import ConfigError
from editr1.editor.policies.base import Condition, EditorPolicy, NotFinite, Size, working_size
from editr1.editor.policies.flux_kontext import FluxKontextPolicy
from editr1.editor.policies.qwen_image_edit import QwenImageEditPolicy
from editr1.verifier.weights import explain_load_errors

POLICIES: dict[str, type[EditorPolicy]] = {policy.kind: policy for policy in (FluxKontextPolicy, QwenImageEditPolicy)}


def load_policy(
    folder_or_hub: str,
    *,
    guidance: float = 2.5,
    dtype: torch.dtype = torch.float32,
    max_text_tokens: int | None = None,
    device: str | torch.device | None = None,
) -> EditorPolicy:
    """Load an editor. The pipeline class in its ``model_index.json`` determines the policy class.

    Args:
        folder_or_hub: Pipeline folder or Hugging Face Hub name.
        guidance: Distilled guidance of FLUX.1-Kontext, or true CFG scale of Qwen-Image-Edit.
        dtype: Dtype of the weights.
        max_text_tokens: Number of tokens to which FLUX pads the T5 prompt. None uses the tokenizer's maximum, at most 512.
            Qwen-Image-Edit ignores it.
        device: Device of the weights. None selects a GPU if one is available.

    Raises:
        ConfigError: The pipeline class is not supported.
        UnusableModel: A file is pickled, missing or damaged, the weights of a component do not match its architecture, or a
            weight is not finite.
    """
    with explain_load_errors(folder_or_hub):
        kind = DiffusionPipeline.load_config(folder_or_hub)["_class_name"]
    if kind not in POLICIES:
        raise ConfigError(
            f"{folder_or_hub}: the pipeline class {kind} is not supported; use one of {', '.join(sorted(POLICIES))}"
        )
    local = Path(folder_or_hub).is_dir()
    root = folder_or_hub if local else DiffusionPipeline.download(folder_or_hub, use_safetensors=True)
    check_model_folder(root)
    policy = POLICIES[kind]
    pipeline = policy.load_pipeline(Path(root), dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if policy is FluxKontextPolicy:
        return FluxKontextPolicy(pipeline, guidance=guidance, text_length=max_text_tokens)
    return policy(pipeline, guidance=guidance)


__all__ = [
    "POLICIES",
    "Condition",
    "EditorPolicy",
    "FluxKontextPolicy",
    "NotFinite",
    "QwenImageEditPolicy",
    "Size",
    "load_policy",
    "working_size",
]
