"""Selection of the weights to train, the frozen reference policy, and the export of the trained editor.

Training changes either the whole transformer or LoRA adapters.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model_state_dict
from torch import Tensor, nn

from editr1.artifacts.export import empty_folder
from editr1.config.grpo import GrpoConfig
from editr1.editor.policies.base import Condition, EditorPolicy

ADAPTER_FOLDER = "lora"


class Tuning:
    """Trainable weights of a policy in fp32, by name, and the reference policy for the KL term.

    With ``tune: lora``, the reference policy is the model with its adapters disabled. With ``tune: full``, it is a frozen copy
    of the transformer, which is made only if ``beta`` is above 0.
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
        """Predict the velocity with the reference policy, the editor before training. See :meth:`EditorPolicy.velocity`."""
        if not self._lora:
            if self._reference is None:
                raise RuntimeError(
                    "there is no reference policy, because beta is 0; set beta above 0 to compute the KL term"
                )
            return self._policy.velocity(latents, sigma, condition, self._reference)
        transformer = self._policy.transformer
        transformer.disable_adapters()
        try:
            return self._policy.velocity(latents, sigma, condition)
        finally:
            transformer.enable_adapters()

    def export(self, folder: Path) -> None:
        """Write the complete pipeline to ``folder``, with LoRA adapters merged into its weights. Files in ``folder`` are removed first.

        LoRA adapters are also written separately to ``folder/lora``. Merging removes the adapters from the model, so training
        cannot continue afterwards.
        """
        empty_folder(folder)
        if self._lora:
            pipeline: Any = self._policy.pipeline
            pipeline.save_lora_weights(
                folder / ADAPTER_FOLDER, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer)
            )
            pipeline.transformer.fuse_lora()
            pipeline.transformer.unload_lora()
        self._policy.save(folder)
