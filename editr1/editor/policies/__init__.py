"""Editor policies over diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from editr1.config.loader import ConfigError
from editr1.editor.policies.base import Condition, EditorPolicy, NotFinite, Size, working_size
from editr1.editor.policies.flux_kontext import FluxKontextPolicy
from editr1.editor.policies.qwen_image_edit import QwenImageEditPolicy

POLICIES: dict[str, type[EditorPolicy]] = {policy.kind: policy for policy in (FluxKontextPolicy, QwenImageEditPolicy)}


def load_policy(
    folder_or_hub: str,
    *,
    guidance: float = 2.5,
    dtype: torch.dtype = torch.float32,
    max_text_tokens: int | None = None,
    device: str | torch.device | None = None,
) -> EditorPolicy:
    """Load an editor from a pipeline folder or a hub name; its kind is read from ``model_index.json``.

    ``guidance`` is the distilled guidance of FLUX.1-Kontext or the true CFG scale of Qwen-Image-Edit.
    ``max_text_tokens`` pads FLUX's T5 text to that length (None: the tokenizer's own, at most 512). ``device`` None
    takes a GPU when there is one.

    Raises:
        ValueError: the pipeline is of a kind that has no policy.
    """
    config = DiffusionPipeline.load_config(folder_or_hub)
    kind = config["_class_name"]
    if kind not in POLICIES:
        raise ConfigError(f"{folder_or_hub}: no policy for pipeline {kind!r}; supported: {', '.join(sorted(POLICIES))}")
    root = folder_or_hub if Path(folder_or_hub).is_dir() else DiffusionPipeline.download(folder_or_hub)
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
