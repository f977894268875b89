"""Settings of the cold start: supervised fine-tuning of the verifier (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from editr1.config.verifier import VerifierTraining


class SftConfig(VerifierTraining):
    """SFT of the verifier on selected traces. The small verifier was evaluated with the defaults."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW. For a pretrained model of 3B or 7B start at 1e-5 (full tuning) or 1e-4 (LoRA)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Optimizer steps of linear warmup."""
    max_steps: int | None = Field(default=450, ge=1)
    """Number of optimizer steps; null: determined by ``epochs``."""
    epochs: float | None = Field(default=None, gt=0)
    """Number of passes over the rows; null: determined by ``max_steps``."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per optimizer step, over all processes."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows per forward pass on each process; gradients are accumulated over batch_size. Null: batch_size divided by
    the number of processes."""
    best_of_n: int = Field(default=8, ge=2)
    """Traces sampled per side of a pair; the best one becomes a row (only with input ``pairs``)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Maximum number of tokens per sampled trace (only with input ``pairs``)."""
    mask_prompt: bool = True
    """Compute the loss on the trace only; prompt and image tokens are masked."""

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("set either max_steps or epochs, and the other one to null")
        return self
