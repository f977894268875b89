"""Settings of GCPO: RL of the verifier on preference pairs (arXiv 2604.27505, section 3.2)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from editr1.config.base import MIN_TEMPERATURE, PositiveOrNone
from editr1.config.loader import ConfigError
from editr1.config.verifier import VerifierTraining
from editr1.training_signal import FIRST_ROLLOUTS


def traces_per_pair(num_traces: int) -> int:
    """Return the number of traces sampled per pair: ``num_traces`` for the winner and ``num_traces`` for the loser."""
    return 2 * num_traces


class GcpoConfig(VerifierTraining):
    """Settings of Group Contrastive Preference Optimization (GCPO).

    The paper gives no values for these settings. The defaults are the values with which GCPO was evaluated on the small
    verifier of the shapes dataset.
    """

    learning_rate: float = Field(default=4e-5, gt=0)
    """Peak learning rate of AdamW. For models of 3B and 7B, start at 1e-6. With 1e-4, the small verifier of the shapes
    dataset lost accuracy: from 0.98 to 0.69 in 40 rollouts, on principles of category "quality"."""
    warmup_steps: int = Field(default=5, ge=0)
    """Number of optimizer steps during which the learning rate rises linearly to its peak."""
    final_lr_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Final learning rate as a fraction of the peak learning rate. It applies to the linear and cosine schedules."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """Coefficients beta1 and beta2 of AdamW."""
    rollouts: int = Field(default=80, ge=1)
    """Number of rollouts. A rollout samples traces for one batch of pairs. Training takes ``rollouts`` x ``passes``
    optimizer steps."""
    pairs_per_rollout: int = Field(default=16, ge=1)
    """Number of pairs per rollout, in total over all processes."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Maximum number of training pairs, taken from the start of the table of pairs. Pairs with the label "same" are not
    counted. Null uses all pairs."""
    shuffle_labels: bool = False
    """Swap winner and loser in a random half of the pairs, so that the labels contain no information (control
    experiment)."""
    num_traces: int = Field(default=8, ge=2)
    """Number of traces sampled for each of the two images of a pair (N in the paper)."""
    passes: int = Field(default=1, ge=1)
    """Number of optimizer steps per rollout. Each step uses all traces of the rollout. With one step per rollout, the
    probability ratio is 1 and clipping has no effect."""
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    """The probability ratio is clipped to [1 - clip_range, 1 + clip_range]."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the initial model in the loss. The default is 0, because the loss in the paper
    has no KL term. The divergence is estimated per token and weighted with the probability ratio, so that its gradient
    is unbiased (arXiv 2512.02556)."""
    tie_credit: float = Field(default=0.0, ge=0, le=0.5)
    """Reward of a trace for each comparison with a trace of the other image that has the same score. With 0, as in
    the paper, a tie gets the same reward as the wrong order, and avoiding ties increases the average reward even if
    the labels are shuffled. With 0.5, avoiding ties has no such effect (see docs/reproduction.md)."""
    temperature: float = Field(default=1.0, ge=MIN_TEMPERATURE)
    """Temperature at which traces are sampled, at least 0.01. The probabilities in the probability ratio are computed
    at the same temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling threshold (top-p); 1 samples from the whole distribution."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Maximum number of tokens per trace. A truncated trace cannot be parsed and gets reward 0."""
    max_rollouts_without_signal: PositiveOrNone = FIRST_ROLLOUTS
    """Number of rollouts without any signal that are allowed at the start of training. After these rollouts, or after
    the last rollout if there are fewer, training stops with exit code 3 and the reason, because the weights have not
    changed. A pair has no signal if all traces of each edit get the same reward, for example because none can be
    parsed. After a pair with a signal, training is never stopped for this reason. Null or 0 disables the check."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Number of traces per forward pass on each process. It must be a divisor of the number of traces that a process
    samples per rollout. Null: all of these traces."""

    @model_validator(mode="after")
    def _micro_batch(self) -> Self:
        self.rollout_layout()
        return self

    def rollout_layout(self, processes: int = 1) -> tuple[int, int]:
        """Return the micro-batch size of each process, in traces, and the number of gradient accumulation steps.

        Raises ConfigError if the pairs of a rollout cannot be divided evenly among the processes, or if
        ``micro_batch_size`` is not a divisor of the number of traces that a process samples per rollout.
        """
        if self.pairs_per_rollout % processes:
            raise ConfigError(
                f"pairs_per_rollout {self.pairs_per_rollout} cannot be divided evenly among {processes} processes; "
                "change pairs_per_rollout or the number of processes"
            )
        traces = self.pairs_per_rollout // processes * traces_per_pair(self.num_traces)
        micro_batch_size = self.micro_batch_size or traces
        if traces % micro_batch_size:
            raise ConfigError(
                f"micro_batch_size {micro_batch_size} is not a divisor of the {traces} traces of a rollout on each "
                f"process (pairs_per_rollout / processes x 2 x num_traces); use a divisor of {traces}"
            )
        return micro_batch_size, traces // micro_batch_size

    def check_processes(self, processes: int) -> None:
        """Raise ConfigError if the pairs of a rollout cannot be divided evenly among ``processes``."""
        self.rollout_layout(processes)
