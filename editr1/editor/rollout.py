"""Denoising loops of an editor: one with a window of stochastic steps for training, and a deterministic one for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editr1.editor.policies.base import Condition, EditorPolicy, Size
from editr1.editor.sde import LogProbForm, SdeKind, log_prob, ode_step, transition
from editr1.editor.trajectory import SampleSpec, TrajectoryBatch
from editr1.seeding import torch_generator


@dataclass(frozen=True)
class SdeSettings:
    """Settings of stochastic sampling for training.

    Attributes:
        num_inference_steps: Denoising steps per sample.
        kind: SDE of the stochastic steps: Flow-SDE or CPS, see :mod:`editr1.editor.sde`.
        noise_level: Parameter a of the SDE, which scales the noise of the stochastic steps.
        window_size: Number of consecutive stochastic steps; all other steps are deterministic.
        log_prob_form: Formula for the log-probability of a stochastic step, see :func:`editr1.editor.sde.log_prob`.
        trajectory_dtype: Dtype in which the latents of a trajectory are stored.
    """

    num_inference_steps: int
    kind: SdeKind
    noise_level: float
    window_size: int
    log_prob_form: LogProbForm = "gaussian"
    trajectory_dtype: torch.dtype = torch.float32


@torch.no_grad()
def sample_trajectories(
    policy: EditorPolicy, condition: Condition, specs: Sequence[SampleSpec], settings: SdeSettings
) -> TrajectoryBatch:
    """Sample edits in one batch.

    Steps inside a sample's window are stochastic, and all other steps are deterministic ODE steps. After each step,
    the latents are rounded to the storage dtype, and sampling continues from the rounded values. Therefore, the
    update recomputes exactly the sampled steps, and the first likelihood ratio is 1.
    """
    device, size = policy.device, len(specs)
    condition_rows = torch.tensor([spec.condition_row for spec in specs], device=device)
    window_starts = torch.tensor([spec.window_start for spec in specs], device=device)
    sigmas = policy.sigmas(settings.num_inference_steps, condition.size).to(device)
    x, noise = _draw_noise(policy, condition.size, specs, settings.window_size)
    x, noise = _rounded(x.to(device), settings.trajectory_dtype), noise.to(device)
    per_sample = condition.take(condition_rows)
    latents = x.new_empty((size, settings.window_size + 1, *x.shape[1:]), dtype=settings.trajectory_dtype)
    log_probs = x.new_zeros((size, settings.window_size))
    for i in range(settings.num_inference_steps):
        sigma, sigma_next = sigmas[i].expand(size), sigmas[i + 1].expand(size)
        k = i - window_starts
        rows = ((k >= 0) & (k < settings.window_size)).nonzero()[:, 0]
        latents[rows, k[rows]] = x[rows].to(settings.trajectory_dtype)
        v = policy.velocity(x, sigma, per_sample)
        after = _rounded(ode_step(x, v, sigma, sigma_next), settings.trajectory_dtype)
        if len(rows):
            move = transition(settings.kind, x[rows], v[rows], sigma[rows], sigma_next[rows], settings.noise_level)
            drawn = _rounded(move.mean + move.std * noise[rows, k[rows]], settings.trajectory_dtype)
            log_probs[rows, k[rows]] = log_prob(drawn, move.mean, move.std, settings.log_prob_form)
            latents[rows, k[rows] + 1] = drawn.to(settings.trajectory_dtype)
            after[rows] = drawn
        x = after
    return TrajectoryBatch(
        condition=condition,
        sample_ids=torch.tensor([spec.sample_id for spec in specs]),
        group_keys=torch.tensor([spec.group_key for spec in specs]),
        condition_rows=condition_rows,
        window_starts=window_starts,
        sigmas=sigmas,
        latents=latents,
        log_probs=log_probs,
        final_latents=x,
        valid_mask=torch.ones(size, dtype=torch.bool),
    )


@torch.no_grad()
def sample_ode(
    policy: EditorPolicy,
    condition: Condition,
    condition_rows: Sequence[int],
    seeds: Sequence[int],
    num_inference_steps: int,
) -> Tensor:
    """Sample edits with deterministic steps. Return clean latents ``[B, tokens, channels]``, one per condition row and seed."""
    device = policy.device
    noise = [policy.initial_noise(condition.size, torch_generator(seed)) for seed in seeds]
    x = torch.stack(noise).to(device)
    per_sample = condition.take(torch.tensor(list(condition_rows), device=device))
    sigmas = policy.sigmas(num_inference_steps, condition.size).to(device)
    for i in range(num_inference_steps):
        sigma, sigma_next = sigmas[i].expand(len(x)), sigmas[i + 1].expand(len(x))
        x = ode_step(x, policy.velocity(x, sigma, per_sample), sigma, sigma_next)
    return x


def _draw_noise(
    policy: EditorPolicy, size: Size, specs: Sequence[SampleSpec], window_size: int
) -> tuple[Tensor, Tensor]:
    """Draw the initial noise ``[B, tokens, channels]`` and the step noise ``[B, window_size, tokens, channels]``."""
    initial, steps = [], []
    for spec in specs:
        generator = torch_generator(spec.noise_seed)
        first = policy.initial_noise(size, generator)
        initial.append(first)
        steps.append(torch.randn((window_size, *first.shape), generator=generator))
    return torch.stack(initial), torch.stack(steps)


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if dtype == torch.float32 else x.to(dtype).float()
