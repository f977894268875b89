"""Exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """fp32 moving average of named weights: shadow = decay * shadow + (1 - decay) * weight after each optimizer step.

    The decay is constant, because a warm-up of the decay would last for most of a short Flow-GRPO training.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: weight.detach().clone().float() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move the average towards ``weights``. Call it after each optimizer step."""
        values = [weights[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), values, 1.0 - self.decay)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Restore a saved average. Raises KeyError if a weight is missing."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])

    @contextmanager
    def applied(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Replace the values of ``weights`` by the average inside the block, and restore them afterwards."""
        original = {name: weight.detach().clone() for name, weight in weights.items()}
        _assign(weights, self.shadow)
        try:
            yield
        finally:
            _assign(weights, original)


@torch.no_grad()
def _assign(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
