"""The clipped surrogate on per-step log-probabilities (Flow-GRPO, arXiv 2505.05470 eq. 5), as a pure function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GrpoLoss(NamedTuple):
    """``loss`` scalar (a sum over kept samples, to be divided by their number), ``ratio`` ``[B]``, ``clipped`` bool."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    kept: Tensor,
    *,
    clip: float,
    kl: Tensor | None = None,
    beta: float = 0.0,
) -> GrpoLoss:
    """Sum over kept samples of -min(rho A, clip(rho, 1-eps, 1+eps) A) + beta KL, rho = exp(log_prob - old_log_prob).

    All tensors ``[B]``. ``clipped`` marks kept samples whose gradient the clip stops.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip)
    terms = -torch.minimum(ratio * advantages, bounded * advantages)
    if kl is not None and beta > 0.0:
        terms = terms + beta * kl
    clipped = kept & (ratio * advantages > bounded * advantages)
    return GrpoLoss(torch.where(kept, terms, torch.zeros_like(terms)).sum(), ratio.detach(), clipped)
