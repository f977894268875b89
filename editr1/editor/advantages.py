"""Group-relative advantages (arXiv 2604.27505 section 3.3; group or batch std as in public Flow-GRPO)."""

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
    """Advantages of N samples.

    Attributes:
        values: ``[N]`` fp32, 0 where ``valid_mask`` is False.
        valid_mask: ``[N]`` bool, False where scoring failed or the group has no reward spread.
        zero_spread: Number of groups whose scores are all equal, or that have fewer than two scores.
        groups: Number of groups.
        failed: Number of samples without a score.
    """

    values: Tensor
    valid_mask: Tensor
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
    """Return A = (r - mean of the group) / (std + 1e-4), clipped to [-``clip``, ``clip``].

    Args:
        scores: ``[N]`` float; entries where ``valid_mask`` is False are ignored.
        valid_mask: ``[N]`` bool, False where scoring failed. Failed samples do not affect means and standard deviations.
        group_keys: ``[N]`` int32 or int64 from the sampler, one key per edit case.
        std: Divide by the population standard deviation of the group, or by that of all scores in the batch.
        clip: Largest absolute advantage.

    Raises:
        TypeError: ``group_keys`` is not an integer tensor.
    """
    if group_keys.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"group_keys must be an int32 or int64 tensor, not {group_keys.dtype}")
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
        valid_mask=with_signal,
        zero_spread=int(zero_spread.sum()),
        groups=len(keys),
        failed=int((~valid_mask).sum()),
    )


def shuffle_within_groups(scores: Tensor, valid_mask: Tensor, group_keys: Tensor, seed: int) -> Tensor:
    """Return ``scores`` ``[N]``, randomly permuted among the valid samples of each group.

    This is a control experiment: each group keeps its set of scores, but a score carries no information about its sample.
    The permutation depends only on the arguments, so it is the same on every process.
    """
    generator = torch_generator(seed)
    shuffled = scores.clone()
    for key in torch.unique(group_keys):
        members = torch.nonzero((group_keys == key) & valid_mask).flatten()
        order = torch.randperm(len(members), generator=generator).to(members.device)
        shuffled[members] = scores[members[order]]
    return shuffled
