"""The policy update of one iteration.

The update recomputes the stochastic steps of the sampled trajectories and minimises the clipped loss over them, plus
the KL penalty. Every forward pass has its own autocast context, so that it uses the current weights in every
precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from editr1.config.grpo import GrpoConfig
from editr1.editor.ema import Ema
from editr1.editor.grpo_loss import grpo_loss
from editr1.editor.kl import kl_divergence
from editr1.editor.policies.base import EditorPolicy, NotFinite
from editr1.editor.precision import attention_kernels, precision_context
from editr1.editor.rollout import SdeSettings
from editr1.editor.sde import log_prob, transition
from editr1.editor.trajectory import TrajectoryBatch
from editr1.editor.tuning import Tuning
from editr1.parallel.context import DistributedContext


@dataclass
class UpdateStats:
    """Statistics of one iteration's update, over the (sample, stochastic step) pairs of all processes.

    With several passes over the samples, a pair counts once per pass.

    Attributes:
        count: Number of pairs with a training signal.
        clipped: Number of pairs whose policy gradient is 0 because of the clipping.
        ratio: Sum of the likelihood ratios of the pairs with a training signal.
        kl_count: Number of pairs with a KL term.
        kl: Sum of the KL terms.
        updates: Number of optimizer steps.
        grad_norms: Gradient norm of each optimizer step, before clipping.
        first_ratio_error: Largest |ratio - 1| in the first forward pass of any process; None if there was no such pass.
    """

    count: int = 0
    clipped: int = 0
    ratio: float = 0.0
    kl_count: int = 0
    kl: float = 0.0
    updates: int = 0
    grad_norms: list[float] = field(default_factory=list)
    first_ratio_error: float | None = None


class Updater:
    """Optimizer of the policy, which trains on the trajectory batches of each iteration."""

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

    def update(self, batches: Sequence[TrajectoryBatch], num_signal: int, num_scored: int) -> UpdateStats:
        """Run all passes of one iteration over the samples.

        The policy loss of an optimizer step is the mean over its stochastic steps and over the samples with a
        training signal. The KL penalty is the mean over its stochastic steps and over all samples with a score,
        including samples of groups without a signal. Both means are over the samples of all processes, so the
        gradient depends neither on the number of processes nor on the batches.

        Args:
            batches: This process's batches, with advantages attached.
            num_signal: Number of samples of all processes that have a training signal. If it is 0, nothing is updated.
            num_scored: Number of samples of all processes that have a score.

        Returns:
            The statistics over all processes.

        Raises:
            NotFinite: The gradient is not finite. Raised before the optimizer step, so the weights stay finite.
        """
        stats = UpdateStats()
        if num_signal == 0:
            return stats
        with attention_kernels():  # The context also applies to activations that gradient checkpointing recomputes.
            for _ in range(self._config.passes):
                for steps in self._step_groups():
                    self._optimizer.zero_grad(set_to_none=True)
                    for batch in batches:
                        rows = self._used_rows(batch)
                        for k in steps if len(rows) else ():
                            policy_loss, kl = self._losses(batch, rows, k, stats)
                            loss = policy_loss / (num_signal * len(steps))
                            if self._config.beta > 0.0:
                                loss = loss + self._config.beta * kl / (num_scored * len(steps))
                            loss.backward()
                    self._optimizer_step(stats)
        return self._over_all_processes(stats)

    def _used_rows(self, batch: TrajectoryBatch) -> Tensor:
        """Return the indices of the samples that contribute to the loss."""
        if batch.signal_mask is None:
            raise ValueError("the trajectory batch has no advantages: call attach_advantages before the update")
        return (batch.valid_mask if self._config.beta > 0.0 else batch.signal_mask).nonzero()[:, 0]

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

    def _losses(self, batch: TrajectoryBatch, rows: Tensor, k: int, stats: UpdateStats) -> tuple[Tensor, Tensor]:
        """Recompute the ``k``-th stochastic step of the samples ``rows``.

        Return the sum of their policy losses and the sum of their KL terms.
        """
        settings, config = self._settings, self._config
        if batch.advantages is None or batch.signal_mask is None:
            raise ValueError("the trajectory batch has no advantages: call attach_advantages before the update")
        advantages, signal = batch.advantages[rows], batch.signal_mask[rows]
        rows = rows.to(batch.final_latents.device)
        before, after, sigma, sigma_next = (value[rows] for value in batch.step(k))
        condition = batch.condition.take(batch.condition_rows[rows])
        with self._forward():
            v = self._policy.velocity(before, sigma, condition)
        move = transition(settings.kind, before, v, sigma, sigma_next, settings.noise_level)
        kl = v.new_zeros((), dtype=torch.float32)
        if config.beta > 0.0:
            with self._forward():
                v_reference = self._tuning.reference_velocity(before, sigma, condition)
            reference = transition(settings.kind, before, v_reference, sigma, sigma_next, settings.noise_level)
            kl = kl_divergence(config.kl, move, reference, v, v_reference).sum()
            stats.kl_count += len(rows)
            stats.kl += float(kl.detach())
        new_log_prob = log_prob(after, move.mean, move.std, settings.log_prob_form)
        result = grpo_loss(
            new_log_prob,
            batch.log_probs[rows, k],
            advantages.to(new_log_prob),
            signal.to(new_log_prob.device),
            clip_bounds=config.clip_bounds,
        )
        ratio = result.ratio[signal.to(result.ratio.device)]
        stats.count += len(ratio)
        stats.clipped += int(result.clipped.sum())
        stats.ratio += float(ratio.sum())
        if stats.first_ratio_error is None:
            stats.first_ratio_error = float((result.ratio - 1.0).abs().max())
        return result.loss, kl

    def _forward(self) -> AbstractContextManager[None]:
        return precision_context(self._policy.device, self._config.precision)

    def _over_all_processes(self, stats: UpdateStats) -> UpdateStats:
        """Return the statistics summed over all processes. The gradient norms are the same on all of them."""
        first = stats.first_ratio_error
        own = [stats.count, stats.clipped, stats.ratio, stats.kl_count, stats.kl, -1.0 if first is None else first]
        parts = torch.stack(self._distributed.all_gather(torch.tensor(own, dtype=torch.float64)))
        count, clipped, ratio, kl_count, kl = parts[:, :-1].sum(0).tolist()
        error = float(parts[:, -1].max())
        return UpdateStats(
            count=int(count),
            clipped=int(clipped),
            ratio=ratio,
            kl_count=int(kl_count),
            kl=kl,
            updates=stats.updates,
            grad_norms=stats.grad_norms,
            first_ratio_error=None if error < 0 else error,
        )
