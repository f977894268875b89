"""The optimiser's side of an iteration: replay of the window and the clipped surrogate's gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from editr1.config.grpo import GrpoConfig
from editr1.editor.ema import Ema
from editr1.editor.grpo_loss import grpo_loss
from editr1.editor.kl import kl_divergence
from editr1.editor.policies.base import EditorPolicy, NotFinite
from editr1.editor.rollout import Chunk, SdeSettings
from editr1.editor.sde import log_prob, transition
from editr1.editor.tuning import Tuning
from editr1.parallel.context import DistributedContext


@dataclass
class UpdateStats:
    """Sums over this process's replayed (sample, step) pairs.

    ``first_ratio_error`` is the largest |ratio - 1| of the first micro-batch.
    """

    count: int = 0
    clipped: int = 0
    ratio: float = 0.0
    kl: float = 0.0
    updates: int = 0
    grad_norms: list[float] = field(default_factory=list)
    first_ratio_error: float | None = None


class Updater:
    """Optimises the policy on an iteration's chunks."""

    def __init__(
        self,
        policy: EditorPolicy,
        tuning: Tuning,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None,
        config: GrpoConfig,
        settings: SdeSettings,
        world: DistributedContext,
    ) -> None:
        self._policy, self._tuning, self._optimizer, self._ema = policy, tuning, optimizer, ema
        self._config, self._settings, self._world = config, settings, world

    def update(self, chunks: Sequence[Chunk], advantages: Tensor, kept: Tensor, kept_total: int) -> UpdateStats:
        """Run the iteration's passes; the gradient is the mean over ``kept_total`` samples of all processes and steps.

        ``advantages`` fp32 and ``kept`` bool are ``[N]`` in the order of the chunks' rows. Without a kept sample
        nothing is updated. Raises NotFinite, before the weights are touched, where the gradient is not finite.
        """
        stats = UpdateStats()
        if kept_total == 0:
            return stats
        for _ in range(self._config.passes):
            for steps in self._step_groups():
                self._optimizer.zero_grad(set_to_none=True)
                for chunk, rows, own in _kept_rows(chunks, kept):
                    for k in steps:
                        loss = self._loss(chunk, rows, advantages[own], k, stats)
                        (loss / (kept_total * len(steps))).backward()
                weights = list(self._tuning.weights.values())
                self._world.all_reduce_gradients(weights)
                norm = float(torch.nn.utils.clip_grad_norm_(weights, self._config.grad_clip))
                if not math.isfinite(norm):
                    raise NotFinite(f"its gradient is {norm}")
                stats.grad_norms.append(norm)
                self._optimizer.step()
                stats.updates += 1
                if self._ema is not None:
                    self._ema.update(self._tuning.weights)
        return stats

    def _step_groups(self) -> list[list[int]]:
        steps = list(range(self._settings.window))
        return [steps] if self._config.update_every == "iteration" else [[k] for k in steps]

    def _loss(self, chunk: Chunk, rows: Tensor, advantages: Tensor, k: int, stats: UpdateStats) -> Tensor:
        settings, config = self._settings, self._config
        before, after, sigma, sigma_next = (value[rows] for value in chunk.step(k))
        condition = chunk.condition.take(chunk.cases[rows])
        kl: Tensor | None = None
        reference = self._tuning.reference_velocity(before, sigma, condition) if config.beta > 0.0 else None
        v = self._policy.velocity(before, sigma, condition)
        move = transition(settings.kind, before, v, sigma, sigma_next, settings.noise_level)
        if reference is not None:
            frozen = transition(settings.kind, before, reference, sigma, sigma_next, settings.noise_level)
            kl = kl_divergence(config.kl, move, frozen, v, reference)
        new = log_prob(after, move.mean, move.std, settings.log_prob_form)
        everyone = torch.ones_like(new, dtype=torch.bool)
        result = grpo_loss(
            new,
            chunk.log_probs[rows, k],
            advantages.to(new),
            everyone,
            clip=config.clip_range,
            kl=kl,
            beta=config.beta,
        )
        stats.count += len(new)
        stats.clipped += int(result.clipped.sum())
        stats.ratio += float(result.ratio.sum())
        stats.kl += float(kl.detach().sum()) if kl is not None else 0.0
        if stats.first_ratio_error is None:
            stats.first_ratio_error = float((result.ratio - 1.0).abs().max())
        return result.loss


def _kept_rows(chunks: Sequence[Chunk], kept: Tensor) -> Iterator[tuple[Chunk, Tensor, Tensor]]:
    """Chunks with the rows that carry a signal, and those rows' places in the iteration."""
    at = 0
    for chunk in chunks:
        places = torch.arange(at, at + len(chunk.groups))
        at += len(chunk.groups)
        own = places[kept[places]]
        if len(own):
            yield chunk, (own - places[0]).to(chunk.final.device), own
