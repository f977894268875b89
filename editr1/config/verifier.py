"""Settings shared by SFT and GCPO of the verifier."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class LoraSettings(Settings):
    """Low-rank adapters instead of full tuning. They are merged at the end, so that the output is a plain checkpoint."""

    rank: int = Field(default=32, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=64.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: Literal["language", "all"] = "language"
    """Linear layers that get an adapter: those of the language model ("language"), or also those of the vision tower
    ("all")."""
    keep_adapter: bool = False
    """Also save the adapter separately, in ``adapter/`` of the output."""


class VerifierTraining(Settings):
    """Settings shared by SFT and GCPO.

    ``precision`` replaces two former settings: ``fp32`` is ``weights: float32``, and ``bf16-mixed`` is
    ``weights: float32`` with ``autocast: true``. The former ``weights: bfloat16`` was removed because pure bfloat16
    weights do not learn: at a learning rate of 1e-6, 0.8 % of the parameters change in 30 steps, compared with 94 % in
    fp32.
    """

    seed: int = Field(default=0, ge=0)
    """Seed of data order and sampling."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps of linear warmup."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate schedule after warmup."""
    final_lr_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Final learning rate as a fraction of the peak (linear and cosine schedules)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Betas of AdamW."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0 disables clipping."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """"fp32", or "bf16-mixed": forward and backward passes under bfloat16 autocast. Weights, gradients and optimizer
    state are fp32 in both."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora: LoraSettings | None = None
    """Train low-rank adapters; null trains all weights."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" uses an accelerator if one is available."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Upscale smaller images to this area in pixels; defaults to the value in the model's prompt template. Saved with the model."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Downscale larger images to this area in pixels; defaults to the value in the model's prompt template. Saved with the model."""
    max_length: int | None = Field(default=None, ge=1)
    """Maximum length of prompt and trace in tokens, image tokens included; null: the model's context length. Longer
    rows are rejected."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Optimizer steps between checkpoints; 0 saves one only when the training is stopped."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints kept on disk; older ones are deleted."""
    log_every: int = Field(default=1, ge=1)
    """Optimizer steps between progress reports."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that decode and prepare images; 0 does it in the training process."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lr_schedule == "constant" and self.final_lr_ratio:
            raise ValueError("final_lr_ratio does not apply to lr_schedule constant: set it to 0")
        return self
