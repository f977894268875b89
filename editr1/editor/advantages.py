"""Advantages of grouped samples (arXiv 2604.27505 section 3.3; group or batch spread as in public Flow-GRPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editr1.seeding import torch_generator

EPS = 1e-4
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Advantages:
    """``values`` ``[N]`` fp32 (0 where masked), ``kept`` ``[N]`` bool, and what was masked.

    ``zero_spread`` counts groups whose scores are all equal or that have fewer than two scores; ``groups`` all groups;
    ``failed`` samples without a score.
    """

    values: Tensor
    kept: Tensor
    zero_spread: int
    groups: int
    failed: int


def group_advantages(
    rewards: Tensor,
    ok: Tensor,
    groups: Tensor,
    *,
    std: Literal["group", "batch"] = "batch",
    clip: float = 5.0,
) -> Advantages:
    """A = (r - mean of the group) / (std + 1e-4), clipped to +-``clip``.

    Args:
        rewards: ``[N]`` float scores; entries where ``ok`` is False are never read.
        ok: ``[N]`` bool, False where scoring failed. Failed samples enter neither mean nor std and are masked.
        groups: ``[N]`` integer keys from the sampler, one a (source, instruction).
        std: population standard deviation of the group or of all scores.
        clip: largest absolute value.

    Raises:
        TypeError: ``groups`` is not an integer tensor.
    """
    if groups.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"group keys must be integers from the sampler, not {groups.dtype}")
    rewards = torch.where(ok, rewards.double(), torch.zeros((), dtype=torch.float64, device=rewards.device))
    keys, index = torch.unique(groups, return_inverse=True)
    n = torch.zeros(len(keys), dtype=torch.float64, device=rewards.device).index_add_(0, index, ok.double())
    total = torch.zeros_like(n).index_add_(0, index, rewards)
    mean = total / n.clamp(min=1.0)
    centred = torch.where(ok, rewards - mean[index], torch.zeros_like(rewards))
    group_std = (torch.zeros_like(n).index_add_(0, index, centred**2) / n.clamp(min=1.0)).sqrt()
    flat = (n < 2) | (group_std < _NO_SPREAD)
    kept = ok & ~flat[index]
    spread = (
        group_std[index]
        if std == "group"
        else (rewards[ok].std(correction=0) if bool(ok.any()) else mean.new_zeros(()))
    )
    values = torch.where(kept, (centred / (spread + EPS)).clamp(-clip, clip), torch.zeros_like(centred))
    return Advantages(values.float(), kept, int(flat.sum()), len(keys), int((~ok).sum()))


def shuffled_in_groups(rewards: Tensor, ok: Tensor, groups: Tensor, seed: int) -> Tensor:
    """``rewards`` ``[N]`` with the scores of each group dealt out anew among its scored samples: a control.

    The scores of every group stay the same, so nothing changes but what they say of a sample. Equal on every process.
    """
    generator = torch_generator(seed)
    dealt = rewards.clone()
    for key in torch.unique(groups):
        members = torch.nonzero((groups == key) & ok).flatten()
        order = torch.randperm(len(members), generator=generator).to(members.device)
        dealt[members] = rewards[members[order]]
    return dealt
