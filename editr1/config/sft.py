"""Settings of supervised fine-tuning (SFT) of the verifier, the paper's cold start (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from editr1.config.base import PositiveOrNone
from editr1.config.errors import ConfigError
from editr1.config.verifier import VerifierTraining


class SftConfig(VerifierTraining):
    """Settings of supervised fine-tuning (SFT).

    The defaults are the values with which the small verifier of the shapes dataset was evaluated.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW. For a pretrained model of 3B or 7B, start at 1e-5 (all weights) or 1e-4 (LoRA)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Number of optimizer steps during which the learning rate rises linearly to its peak."""
    max_steps: PositiveOrNone = 450
    """Number of optimizer steps. Null or 0: the number follows from ``epochs``."""
    epochs: float | None = Field(default=None, gt=0)
    """Number of passes over the rows. Null: the number follows from ``max_steps``."""
    batch_size: int = Field(default=32, ge=1)
    """Number of rows per optimizer step, in total over all processes."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Number of rows per forward pass on each process. Gradients are accumulated until ``batch_size`` rows are
    processed. Null: ``batch_size`` divided by the number of processes, so that no accumulation is needed."""
    best_of_n: int = Field(default=8, ge=2)
    """Number of traces sampled for each of the two images of a pair, if the stage trains on the input ``pairs``. The
    trace with the highest reward becomes a training row."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Maximum number of tokens per sampled trace, if the stage trains on the input ``pairs``."""
    mask_prompt: bool = True
    """Compute the loss on the tokens of the trace only. Prompt and image tokens are masked."""

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError(
                f"max_steps {self.max_steps} and epochs {self.epochs}: set exactly one of the two, and the other to null"
            )
        return self

    def batch_layout(self, processes: int) -> tuple[int, int]:
        """Return the micro-batch size (rows per forward pass on each process), and the number of gradient accumulation steps.

        Raises ConfigError if ``batch_size`` is not a multiple of the micro-batch size times the number of processes.
        """
        micro_batch_size = self.micro_batch_size or math.ceil(self.batch_size / processes)
        rows_per_pass = micro_batch_size * processes
        if self.batch_size % rows_per_pass:
            raise ConfigError(
                f"batch_size {self.batch_size} is not a multiple of {rows_per_pass} (micro_batch_size "
                f"{micro_batch_size} x {processes} processes); change micro_batch_size or batch_size"
            )
        return micro_batch_size, self.batch_size // rows_per_pass

    def check_processes(self, processes: int) -> None:
        """Raise ConfigError if a batch cannot be divided evenly among ``processes``."""
        self.batch_layout(processes)
