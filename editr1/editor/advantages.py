"""Group-relative advantages of Flow-GRPO (arXiv 2604.27505, section 3.3).

A group consists of all samples of one edit case. The advantage of a sample is its score relative to its group's mean score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editr1.seeding import torch_generator

EPS = 1e-4
_MIN_SPREAD = 1e-6


@dataclass(frozen=True)
class Advantages:
    """Result of :func:`group_advantages` for N samples.

    Attributes:
        values: ``[N]`` fp32 advantages, 0 where ``signal_mask`` is False.
        signal_mask: ``[N]`` bool, False where scoring failed or the group is counted in ``zero_spread``.
        zero_spread: Number of groups without a training signal, because all their scores are equal or fewer than two
            samples have a score.
        groups: Total number of groups.
        failed: Number of samples whose scoring failed.
    """

    values: Tensor
    signal_mask: Tensor
    zero_spread: int
    groups: int
    failed: int


def group_advantages(
    scores: Tensor,
    valid_mask: Tensor,
    group_keys: Tensor,
    *,
    std: Literal["group", "batch"] = "batch",
    clip: float = 5.0,
) -> Advantages:
    """Compute the advantage of each sample: (score - mean of its group) / (std + 1e-4), clipped to [-``clip``, ``clip``].

    The constant 1e-4 limits the division by a very small standard deviation.

    Args:
        scores: ``[N]`` float; entries where ``valid_mask`` is False are ignored.
        valid_mask: ``[N]`` bool, False where scoring failed. Failed samples do not affect means and standard deviations.
        group_keys: ``[N]`` int32 or int64. The samples of one edit case have the same key.
        std: Scores over which the population standard deviation is computed: the sample's group, or the whole batch
            as in public Flow-GRPO.
        clip: Maximum absolute value of an advantage.

    Raises:
        TypeError: ``group_keys`` is not an integer tensor.
    """
    if group_keys.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"group_keys must be an int32 or int64 tensor, not {group_keys.dtype}; pass the sampler's keys")
    scores = torch.where(valid_mask, scores.double(), torch.zeros((), dtype=torch.float64, device=scores.device))
    keys, index = torch.unique(group_keys, return_inverse=True)
    n = torch.zeros(len(keys), dtype=torch.float64, device=scores.device).index_add_(0, index, valid_mask.double())
    total = torch.zeros_like(n).index_add_(0, index, scores)
    mean = total / n.clamp(min=1.0)
    centred = torch.where(valid_mask, scores - mean[index], torch.zeros_like(scores))
    group_std = (torch.zeros_like(n).index_add_(0, index, centred**2) / n.clamp(min=1.0)).sqrt()
    zero_spread = (n < 2) | (group_std < _MIN_SPREAD)
    batch_std = scores[valid_mask].std(correction=0) if bool(valid_mask.any()) else mean.new_zeros(())
    spread = group_std[index] if std == "group" else batch_std
    with_signal = valid_mask & ~zero_spread[index]
    values = torch.where(with_signal, (centred / (spread + EPS)).clamp(-clip, clip), torch.zeros_like(centred))
    return Advantages(
        values=values.float(),
        signal_mask=with_signal,
        zero_spread=int(zero_spread.sum()),
        groups=len(keys),
        failed=int((~valid_mask).sum()),
    )


def shuffle_within_groups(scores: Tensor, valid_mask: Tensor, group_keys: Tensor, seed: int) -> Tensor:
    """Randomly permute the scores ``[N]`` within each group. Only valid samples take part.

    This serves a control experiment: the set of scores of each group does not change, but a score contains no
    information about its sample. The permutation depends only on the arguments, so it is the same on every process.
    """
    generator = torch_generator(seed)
    shuffled = scores.clone()
    for key in torch.unique(group_keys):
        members = torch.nonzero((group_keys == key) & valid_mask).flatten()
        order = torch.randperm(len(members), generator=generator).to(members.device)
        shuffled[members] = scores[members[order]]
    return shuffled
