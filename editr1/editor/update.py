"""The policy update of one iteration.

The update recomputes the stochastic steps of the sampled trajectories and minimises the clipped loss over them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from editr1.config.grpo import GrpoConfig
from editr1.editor.ema import Ema
from editr1.editor.grpo_loss import grpo_loss
from editr1.editor.kl import kl_divergence
from editr1.editor.policies.base import EditorPolicy, NotFinite
from editr1.editor.rollout import SdeSettings
from editr1.editor.sde import log_prob, transition
from editr1.editor.trajectory import TrajectoryBatch
from editr1.editor.tuning import Tuning
from editr1.parallel.context import DistributedContext


@dataclass
class UpdateStats:
    """Statistics of one iteration's update, over the (sample, stochastic step) pairs that this process recomputed.

    Attributes:
        count: Number of pairs. With several passes over the samples, a pair counts once per pass.
        clipped: Number of pairs whose gradient is 0 because of the clipping.
        ratio: Sum of the likelihood ratios.
        kl: Sum of the KL terms.
        updates: Number of optimizer steps.
        grad_norms: Gradient norm of each optimizer step, before clipping.
        first_ratio_error: Largest |ratio - 1| in the first forward pass; None if this process recomputed nothing.
    """

    count: int = 0
    clipped: int = 0
    ratio: float = 0.0
    kl: float = 0.0
    updates: int = 0
    grad_norms: list[float] = field(default_factory=list)
    first_ratio_error: float | None = None


class Updater:
    """Optimization of the policy on the trajectory batches of each iteration."""

    def __init__(
        self,
        policy: EditorPolicy,
        tuning: Tuning,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        config: GrpoConfig,
        settings: SdeSettings,
        distributed: DistributedContext,
    ) -> None:
        self._policy, self._tuning, self._optimizer, self._ema = policy, tuning, optimizer, ema
        self._config, self._settings, self._distributed = config, settings, distributed

    def update(self, batches: Sequence[TrajectoryBatch], num_valid: int) -> UpdateStats:
        """Run all passes of one iteration over the valid samples.

        The gradient of an optimizer step is the mean over its stochastic steps and the valid samples of all processes.

        Args:
            batches: This process's batches, with advantages attached.
            num_valid: Number of valid samples over all processes. If it is 0, nothing is updated.

        Raises:
            NotFinite: The gradient is not finite. Raised before the optimizer step, so the weights stay finite.
        """
        stats = UpdateStats()
        if num_valid == 0:
            return stats
        for _ in range(self._config.passes):
            for steps in self._step_groups():
                self._optimizer.zero_grad(set_to_none=True)
                for batch in batches:
                    rows = batch.valid_mask.nonzero()[:, 0]
                    if len(rows) == 0:
                        continue
                    for k in steps:
                        (self._loss(batch, rows, k, stats) / (num_valid * len(steps))).backward()
                self._optimizer_step(stats)
        return stats

    def _optimizer_step(self, stats: UpdateStats) -> None:
        weights = list(self._tuning.weights.values())
        self._distributed.all_reduce_gradients(weights)
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self._config.max_grad_norm))
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient norm is {norm}")
        stats.grad_norms.append(norm)
        self._optimizer.step()
        stats.updates += 1
        if self._ema is not None:
            self._ema.update(self._tuning.weights)

    def _step_groups(self) -> list[list[int]]:
        """Return the indices of the stochastic steps for each optimizer step."""
        steps = list(range(self._settings.window_size))
        return [steps] if self._config.update_every == "iteration" else [[k] for k in steps]

    def _loss(self, batch: TrajectoryBatch, rows: Tensor, k: int, stats: UpdateStats) -> Tensor:
        """Recompute the ``k``-th stochastic step of the samples ``rows``, and return their summed loss."""
        settings, config = self._settings, self._config
        if batch.advantages is None:
            raise ValueError("the trajectory batch has no advantages: call attach_advantages before the update")
        advantages = batch.advantages[rows]
        rows = rows.to(batch.final_latents.device)
        before, after, sigma, sigma_next = (value[rows] for value in batch.step(k))
        condition = batch.condition.take(batch.condition_rows[rows])
        kl: Tensor | None = None
        v_reference = self._tuning.reference_velocity(before, sigma, condition) if config.beta > 0.0 else None
        v = self._policy.velocity(before, sigma, condition)
        move = transition(settings.kind, before, v, sigma, sigma_next, settings.noise_level)
        if v_reference is not None:
            reference = transition(settings.kind, before, v_reference, sigma, sigma_next, settings.noise_level)
            kl = kl_divergence(config.kl, move, reference, v, v_reference)
        new_log_prob = log_prob(after, move.mean, move.std, settings.log_prob_form)
        result = grpo_loss(
            new_log_prob,
            batch.log_probs[rows, k],
            advantages.to(new_log_prob),
            torch.ones_like(new_log_prob, dtype=torch.bool),
            clip_bounds=config.clip_bounds,
            kl=kl,
            beta=config.beta,
        )
        stats.count += len(new_log_prob)
        stats.clipped += int(result.clipped.sum())
        stats.ratio += float(result.ratio.sum())
        stats.kl += float(kl.detach().sum()) if kl is not None else 0.0
        if stats.first_ratio_error is None:
            stats.first_ratio_error = float((result.ratio - 1.0).abs().max())
        return result.loss
