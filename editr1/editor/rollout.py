"""Sampling of groups with a stochastic window, keeping what the update needs to replay it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editr1.editor.policies.base import Condition, EditorPolicy, Size
from editr1.editor.sde import LogProbForm, SdeKind, log_prob, ode_step, transition
from editr1.seeding import torch_generator


@dataclass(frozen=True)
class SdeSettings:
    """How samples are drawn: ``steps`` denoising steps, the stochastic ones of ``kind`` at ``noise_level``."""

    steps: int
    kind: SdeKind
    noise_level: float
    window: int
    log_prob_form: LogProbForm = "gaussian"
    storage: torch.dtype = torch.float32


@dataclass(frozen=True)
class Draw:
    """One sample to make.

    ``case`` indexes the condition, ``group`` is the sampler's key, ``start`` the window's first step, ``seed`` its noise.
    """

    case: int
    group: int
    start: int
    seed: int


@dataclass(frozen=True)
class Chunk:
    """Samples of one forward and their trajectory inside the window.

    ``trajectory`` ``[B, window + 1, tokens, channels]`` in the storage type; ``sigmas`` ``[steps + 1]``; ``start``
    ``[B]``; ``log_probs`` ``[B, window]`` fp32; ``final`` the clean latents ``[B, tokens, channels]``.
    """

    condition: Condition
    cases: Tensor
    groups: Tensor
    start: Tensor
    sigmas: Tensor
    trajectory: Tensor
    log_probs: Tensor
    final: Tensor

    def step(self, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents before and after the ``k``-th window step (fp32) and their sigmas ``[B]``."""
        before, after = self.trajectory[:, k].float(), self.trajectory[:, k + 1].float()
        return before, after, self.sigmas[self.start + k], self.sigmas[self.start + k + 1]


@torch.no_grad()
def sample_chunk(policy: EditorPolicy, condition: Condition, draws: Sequence[Draw], settings: SdeSettings) -> Chunk:
    """Draw samples: stochastic inside each one's window, ODE elsewhere.

    Latents are rounded to the storage type after each step, so what is replayed is what was sampled.
    """
    device = policy.device
    cases = torch.tensor([draw.case for draw in draws], device=device)
    start = torch.tensor([draw.start for draw in draws], device=device)
    sigmas = policy.sigmas(settings.steps, condition.size).to(device)
    x, noise = _noise(policy, condition.size, draws, settings.window)
    x, noise = _stored(x.to(device), settings.storage), noise.to(device)
    taken = condition.take(cases)
    trajectory = x.new_empty((len(draws), settings.window + 1, *x.shape[1:]), dtype=settings.storage)
    log_probs = x.new_zeros((len(draws), settings.window))
    for i in range(settings.steps):
        sigma, sigma_next = sigmas[i].expand(len(draws)), sigmas[i + 1].expand(len(draws))
        k = i - start
        inside = (k >= 0) & (k < settings.window)
        rows = inside.nonzero()[:, 0]
        trajectory[rows, k[rows]] = x[rows].to(settings.storage)
        v = policy.velocity(x, sigma, taken)
        after = _stored(ode_step(x, v, sigma, sigma_next), settings.storage)
        if len(rows):
            move = transition(settings.kind, x[rows], v[rows], sigma[rows], sigma_next[rows], settings.noise_level)
            drawn = _stored(move.mean + move.std * noise[rows, k[rows]], settings.storage)
            log_probs[rows, k[rows]] = log_prob(drawn, move.mean, move.std, settings.log_prob_form)
            trajectory[rows, k[rows] + 1] = drawn.to(settings.storage)
            after[rows] = drawn
        x = after
    groups = torch.tensor([draw.group for draw in draws])
    return Chunk(condition, cases, groups, start, sigmas, trajectory, log_probs, x)


@torch.no_grad()
def sample_ode(
    policy: EditorPolicy, condition: Condition, cases: Sequence[int], seeds: Sequence[int], steps: int
) -> Tensor:
    """Deterministic samples: clean latents ``[B, tokens, channels]``, one for each (case, seed)."""
    device = policy.device
    noise = [policy.initial_noise(condition.size, torch_generator(seed)) for seed in seeds]
    x = torch.stack(noise).to(device)
    taken = condition.take(torch.tensor(list(cases), device=device))
    sigmas = policy.sigmas(steps, condition.size).to(device)
    for i in range(steps):
        sigma, sigma_next = sigmas[i].expand(len(x)), sigmas[i + 1].expand(len(x))
        x = ode_step(x, policy.velocity(x, sigma, taken), sigma, sigma_next)
    return x


def _noise(policy: EditorPolicy, size: Size, draws: Sequence[Draw], window: int) -> tuple[Tensor, Tensor]:
    initial, steps = [], []
    for draw in draws:
        generator = torch_generator(draw.seed)
        first = policy.initial_noise(size, generator)
        initial.append(first)
        steps.append(torch.randn((window, *first.shape), generator=generator))
    return torch.stack(initial), torch.stack(steps)


def _stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if dtype == torch.float32 else x.to(dtype).float()
