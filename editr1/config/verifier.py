"""Settings that are common to SFT and GCPO of the verifier."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class LoraSettings(Settings):
    """Settings of low-rank adapters (LoRA), which are trained instead of all weights.

    After training, the adapters are merged into the model, so that the output is a checkpoint without adapters.
    """

    rank: int = Field(default=32, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=64.0, gt=0)
    """Numerator of the factor by which the adapters' output is multiplied: ``alpha`` / ``rank``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability for the inputs of the adapters."""
    targets: Literal["language", "all"] = "language"
    """Linear layers that get an adapter. "language": the layers of the language model. "all": the layers of the
    language model and of the vision tower."""
    keep_adapter: bool = False
    """Also save the unmerged adapter, in the folder ``adapter`` of the output."""


class VerifierTraining(Settings):
    """Base class of the settings of SFT and GCPO, the two kinds of verifier training."""

    seed: int = Field(default=0, ge=0)
    """Random seed for the order of the training data and for the sampling of traces."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: int = Field(default=0, ge=0)
    """Number of optimizer steps during which the learning rate rises linearly to its peak."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate schedule after the warmup."""
    final_lr_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Final learning rate as a fraction of the peak learning rate. It applies to the linear and cosine schedules."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Coefficients beta1 and beta2 of AdamW."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Maximum norm of the gradient. Larger gradients are scaled down. With 0, gradients are not clipped."""
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    """Numeric precision. With "bf16-mixed", forward and backward passes run under bfloat16 autocast. Weights, gradients
    and optimizer state are fp32 with both values. Pure bfloat16 is not offered, because weights in bfloat16 do not
    learn: at a learning rate of 1e-6, only 0.8 % of them change in 30 steps, compared with 94 % of fp32 weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. This takes less memory and about a third more time."""
    lora: LoraSettings | None = None
    """Train low-rank adapters with these settings. Null trains all weights."""
    device: Literal["auto", "cpu"] = "auto"
    """Torch device on which the model is trained. "auto" uses an accelerator if one is available."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Minimum area of an image, in pixels. Smaller images are upscaled. Null: the value saved with the input model. The
    trained model is saved with the value that is used in training."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Maximum area of an image, in pixels. Larger images are downscaled. Null: the value saved with the input model.
    The trained model is saved with the value that is used in training."""
    max_length: int | None = Field(default=None, ge=1)
    """Maximum total length of prompt, image and trace, in tokens. Longer rows are rejected. Null: the context length of
    the model."""
    checkpoint_every: int = Field(default=0, ge=0)
    """Number of optimizer steps between checkpoints. With 0, a checkpoint is saved only when training is stopped
    early."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints on disk. Older checkpoints are deleted."""
    log_every: int = Field(default=1, ge=1)
    """Number of optimizer steps between progress reports."""
    dataloader_workers: int = Field(default=0, ge=0)
    """Number of processes that decode and prepare images. With 0, the training process prepares the images itself."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lr_schedule == "constant" and self.final_lr_ratio:
            raise ValueError(
                f"final_lr_ratio {self.final_lr_ratio} does not apply to lr_schedule constant; set final_lr_ratio to 0"
            )
        return self
