"""Settings that both trainings of the verifier share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class LoraSettings(Settings):
    """Low-rank adapters in place of full tuning. The result is merged, so that the output is a plain folder."""

    rank: int = Field(default=32, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=64.0, gt=0)
    """Scale: the adapter's product is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: Literal["language", "all"] = "language"
    """Which linear layers get one: those of the language model, or the vision tower's as well."""
    keep_adapter: bool = False
    """Also write the adapter by itself, into ``adapter/`` of the output."""


class VerifierTraining(Settings):
    """What SFT and GCPO have in common."""

    seed: int = Field(default=0, ge=0)
    """Seed of data order and sampling."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    final_lr_ratio: float = Field(default=0.0, ge=0, lt=1)
    """The learning rate's end, as a share of its peak (linear and cosine)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's two decay rates."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Precision of the forward and backward passes: "fp32", or "bf16-mixed" (bfloat16 autocast). Weights and optimizer state are fp32 in both."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora: LoraSettings | None = None
    """Train adapters; null: every weight."""
    device: Literal["auto", "cpu"] = "auto"
    """"auto" takes an accelerator where there is one."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Enlarge smaller pictures to this area; null keeps the model's own prompt template. Saved with the result."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Reduce larger pictures to this area; null keeps the model's own prompt template. Saved with the result."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest prompt with its trace, in tokens, pictures included; null: what the model's context holds. Longer rows are refused."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Optimiser steps between checkpoints; 0: only when asked to stop."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept on disk; older ones are deleted."""
    log_every: int = Field(default=1, ge=1)
    """Optimiser steps between two reports of progress."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Processes that decode and lay out pictures beside the training; 0: in the training process."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lr_schedule == "constant" and self.final_lr_ratio:
            raise ValueError("final_lr_ratio has no meaning for a constant schedule: leave it at 0")
        return self
