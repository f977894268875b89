"""Stochastic and deterministic denoising steps of a rectified flow.

Sampling and the update use the same pure functions. A step goes from noise level ``sigma`` to the lower ``sigma_next``
(written sigma' in formulas). ``sigma`` is 1 for noise and 0 for data, and the velocity ``v`` is noise - data. Noise levels are
scalars or ``[B]``; latents and velocities are ``[B, ...]``. Everything is computed and returned in fp32.

Flow-SDE follows arXiv 2505.05470, eq. 9, and its public code. CPS follows arXiv 2509.05952.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SdeKind = Literal["flow", "cps"]
LogProbForm = Literal["gaussian", "public"]

_ONE = 1.0 - 1e-6


class Transition(NamedTuple):
    """Gaussian distribution of the latents after a stochastic step.

    Attributes:
        mean: ``[B, ...]``.
        std: ``[B, 1, ...]`` standard deviation.
        diffusion: ``[B, 1, ...]`` diffusion coefficient s. In Flow-SDE, std = s sqrt(-dt). In CPS, it equals ``std``.
    """

    mean: Tensor
    std: Tensor
    diffusion: Tensor


def transition(
    kind: SdeKind, x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float
) -> Transition:
    """Return the distribution of the latents after one stochastic step of the given kind."""
    step = flow_sde_step if kind == "flow" else cps_step
    return step(x, v, sigma, sigma_next, noise_level)


def flow_sde_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> Transition:
    """Flow-SDE step with s = a sqrt(sigma / (1 - sigma)) and std = s sqrt(-dt), where a is ``noise_level``.

    At sigma = 1, where the denominator would be 0, it is replaced with 1 - ``sigma_next``. With ``noise_level`` 0,
    the step is the Euler step of the ODE.
    """
    x, v, sigma, sigma_next = _broadcast(x, v, sigma, sigma_next)
    dt = sigma_next - sigma
    denominator = 1.0 - torch.where(sigma >= _ONE, sigma_next, sigma)
    s = noise_level * torch.sqrt(sigma / denominator)
    mean = x * (1.0 + s**2 * dt / (2.0 * sigma)) + v * (1.0 + s**2 * (1.0 - sigma) / (2.0 * sigma)) * dt
    return Transition(mean, s * torch.sqrt(-dt), s)


def cps_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, noise_level: float) -> Transition:
    """Step of coefficients-preserving sampling (CPS): std = sigma' sin(a pi/2), where a is ``noise_level``.

    The last step, to sigma' = 0, has std 0.
    """
    x, v, sigma, sigma_next = _broadcast(x, v, sigma, sigma_next)
    std = sigma_next * math.sin(noise_level * math.pi / 2.0)
    data = x - sigma * v
    noise = x + (1.0 - sigma) * v
    mean = data * (1.0 - sigma_next) + noise * torch.sqrt(torch.clamp(sigma_next**2 - std**2, min=0.0))
    return Transition(mean, std, std)


def ode_step(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Euler step of the probability-flow ODE: x + (sigma' - sigma) v."""
    x, v, sigma, sigma_next = _broadcast(x, v, sigma, sigma_next)
    return x + (sigma_next - sigma) * v


def log_prob(sample: Tensor, mean: Tensor, std: Tensor, form: LogProbForm = "gaussian") -> Tensor:
    """Return the log-density of ``sample`` ``[B, ...]``, averaged over its elements, as ``[B]`` fp32.

    The form ``gaussian`` is the log-density of a Gaussian. The form ``public`` is -(sample - mean)^2, as in the
    published CPS code, without the factor 1/(2 std^2) and without constants. Its likelihood ratios have a different
    scale and need a different clip range.

    Raises:
        ValueError: The form is ``gaussian`` and ``std`` is 0. A deterministic step has no density.
    """
    square = (sample.float() - mean.float()) ** 2
    if form == "public":
        return -square.flatten(1).mean(1)
    std = std.float()
    if bool((std <= 0).any()):
        raise ValueError(
            "a step with std 0 is deterministic and has no log-probability; move the window so that it excludes the step"
        )
    density = -square / (2.0 * std**2) - torch.log(std) - 0.5 * math.log(2.0 * math.pi)
    return density.flatten(1).mean(1)


def _broadcast(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, v = x.float(), v.float()
    shape = (-1,) + (1,) * (x.ndim - 1)
    return x, v, sigma.to(x).reshape(shape), sigma_next.to(x).reshape(shape)
