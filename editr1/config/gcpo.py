"""Settings of GCPO: reinforcement learning of the verifier on preference pairs (arXiv 2604.27505, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from editr1.config.verifier import VerifierTraining


class GcpoConfig(VerifierTraining):
    """Group contrastive preference optimisation. The defaults are those that the small verifier was measured with.

    The paper gives none of these numbers.
    """

    learning_rate: float = Field(default=4e-5, gt=0)
    """Peak learning rate of AdamW. 1e-4 destroyed the quality verdict of the small verifier (right answers .98 to .69 in 40 rollouts); for 3B and 7B models start at 1e-6."""
    warmup_steps: int = Field(default=5, ge=0)
    """Optimiser steps over which the learning rate rises from 0."""
    final_lr_ratio: float = Field(default=0.1, ge=0, lt=1)
    """The learning rate's end, as a share of its peak (linear and cosine)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """AdamW's two decay rates."""
    rollouts: int = Field(default=80, ge=1)
    """Batches of pairs that traces are sampled for. Optimiser steps in all: rollouts x passes."""
    pairs_per_rollout: int = Field(default=16, ge=1)
    """Pairs a rollout, over all processes."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Train on the first so many decided pairs; null: all."""
    shuffle_labels: bool = False
    """A control: winner and loser change places in half of the pairs at random, so that there is nothing to learn."""
    num_traces: int = Field(default=8, ge=2)
    """N: traces sampled for the winner, and as many for the loser."""
    passes: int = Field(default=1, ge=1)
    """Optimiser steps a rollout, each over all of its traces. With one, the ratio is 1 and the clip is inert."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    """The ratio is clipped to [1 - clip_range, 1 + clip_range]."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL term to the starting model; the paper omits it."""
    tie_credit: float = Field(default=0.0, ge=0, le=0.5)
    """What a trace earns against an opponent of the same score. At 0 (the paper's) telling two edits apart pays whichever is
    the better, so even shuffled labels teach; at 0.5 only the right order does (docs/reproduction.md)."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of sampling, and of the likelihoods in the ratio."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of sampling; 1 samples from the whole distribution."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest trace. A trace that is cut cannot be parsed and earns nothing."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Traces a forward pass and process; null: all that a process sampled. Must divide that number."""

    @model_validator(mode="after")
    def _micro_batch(self) -> Self:
        rows = self.pairs_per_rollout * 2 * self.num_traces
        if self.micro_batch_size is not None and rows % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide the {rows} traces of a rollout "
                "(pairs_per_rollout x 2 x num_traces)"
            )
        return self
