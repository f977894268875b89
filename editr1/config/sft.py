"""Settings of the cold start: supervised fine-tuning of the verifier (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from editr1.config.verifier import VerifierTraining


class SftConfig(VerifierTraining):
    """SFT of the verifier on selected traces. The defaults are those that the small verifier was measured with."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW. For a pretrained 3B or 7B model start at 1e-5 (full) or 1e-4 (LoRA)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    max_steps: int | None = Field(default=450, ge=1)
    """Optimiser steps; null: as many as ``epochs`` takes."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the rows, in place of ``max_steps``."""
    batch_size: int = Field(default=32, ge=1)
    """Rows an optimiser step, over all processes."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows a forward pass and process; null: batch_size over the number of processes. Smaller: gradients are accumulated."""
    best_of_n: int = Field(default=8, ge=2)
    """Traces sampled a side where pairs pick the rows (input ``pairs``)."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest of these traces."""
    mask_prompt: bool = True
    """Loss on the trace only (prompt and picture tokens masked)."""

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs, and set the other to null")
        return self
