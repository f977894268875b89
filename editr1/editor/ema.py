"""Exponential running mean of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """fp32 shadow of named weights: shadow = decay * shadow + (1 - decay) * weight after each update.

    The decay is constant: with the short trainings of Flow-GRPO a warm-up of the decay would be most of the training.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: weight.detach().clone().float() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after an optimiser update."""
        values = [weights[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), values, 1.0 - self.decay)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Continue from a saved shadow; ``KeyError`` if a weight is missing."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])

    @contextmanager
    def applied(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside the block ``weights`` hold the running mean; afterwards their own values again."""
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        _assign(weights, self.shadow)
        try:
            yield
        finally:
            _assign(weights, kept)


@torch.no_grad()
def _assign(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
