"""What is trained (the whole transformer or adapters), the frozen reference, and how the result is written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model_state_dict
from torch import Tensor, nn

from editr1.config.grpo import GrpoConfig
from editr1.editor.policies.base import Condition, EditorPolicy

ADAPTER_FOLDER = "lora"


class Tuning:
    """The trained weights of a policy, by name, fp32.

    With ``tune: lora`` the reference is the model with its adapters off; with ``full`` it is a frozen copy, made only
    when ``beta`` asks for a KL term.
    """

    def __init__(self, policy: EditorPolicy, config: GrpoConfig) -> None:
        self._policy = policy
        self._lora = config.tune == "lora"
        self._reference: nn.Module | None = None
        transformer = policy.transformer
        if config.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        if self._lora:
            transformer.add_adapter(
                PeftLoraConfig(
                    r=config.lora.rank,
                    lora_alpha=config.lora.alpha,
                    init_lora_weights="gaussian",
                    target_modules=list(config.lora.targets),
                )
            )
        else:
            if config.beta > 0.0:
                self._reference = copy.deepcopy(transformer)
            transformer.float().requires_grad_(True)
        self.weights: dict[str, nn.Parameter] = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
        for weight in self.weights.values():
            weight.data = weight.data.float()

    @torch.no_grad()
    def reference_velocity(self, latents: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Velocity of the editor as it was before training."""
        if not self._lora:
            if self._reference is None:
                raise RuntimeError("no reference was kept: beta is 0")
            return self._policy.velocity(latents, sigma, condition, self._reference)
        transformer = self._policy.transformer
        transformer.disable_adapters()
        try:
            return self._policy.velocity(latents, sigma, condition)
        finally:
            transformer.enable_adapters()

    def export(self, folder: Path) -> None:
        """Write the whole pipeline, adapters merged in and also by themselves under ``lora/``. Ends the training."""
        if self._lora:
            pipeline: Any = self._policy.pipeline
            pipeline.save_lora_weights(
                folder / ADAPTER_FOLDER, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer)
            )
            pipeline.transformer.fuse_lora()
            pipeline.transformer.unload_lora()
        self._policy.save(folder)
