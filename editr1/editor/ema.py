"""Exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Moving average of named weights in fp32. An update computes average = decay * average + (1 - decay) * weight.

    The decay is constant. There is no warm-up, because it would take up most of a short Flow-GRPO training run.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: weight.detach().clone().float() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Update the average with the current ``weights``. Call this after each optimizer step."""
        values = [weights[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), values, 1.0 - self.decay)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Restore a saved average. Raises KeyError if a weight is missing from ``shadow``."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])

    @contextmanager
    def applied(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Context manager that sets ``weights`` to their moving average, and restores the original values at the end."""
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
