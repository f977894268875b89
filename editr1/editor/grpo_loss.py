"""The clipped policy loss of Flow-GRPO (arXiv 2505.05470, eq. 5) for one denoising step, as a pure function."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GrpoLoss(NamedTuple):
    """Result of :func:`grpo_loss` for B samples.

    Attributes:
        loss: Scalar sum over the valid samples. The caller divides it by their number.
        ratio: ``[B]`` likelihood ratios, detached.
        clipped: ``[B]`` bool, True for valid samples whose policy gradient is 0 because of the clipping.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    valid_mask: Tensor,
    *,
    clip_bounds: tuple[float, float],
) -> GrpoLoss:
    """Return the sum over valid samples of -min(rho A, clip(rho, 1 - eps, 1 + eps) A).

    rho = exp(log_prob - old_log_prob) is the likelihood ratio, and A is the advantage.

    Args:
        log_prob: ``[B]`` fp32 log-probabilities under the current policy.
        old_log_prob: ``[B]`` fp32 log-probabilities under the policy that sampled.
        advantages: ``[B]`` fp32.
        valid_mask: ``[B]`` bool. Samples where it is False contribute neither loss nor gradient.
        clip_bounds: Smallest and largest ratio after clipping, 1 - eps and 1 + eps.
    """
    ratio = torch.exp(log_prob - old_log_prob)
    bounded = ratio.clamp(*clip_bounds)
    terms = -torch.minimum(ratio * advantages, bounded * advantages)
    clipped = valid_mask & (ratio * advantages > bounded * advantages)
    return GrpoLoss(torch.where(valid_mask, terms, torch.zeros_like(terms)).sum(), ratio.detach(), clipped)
