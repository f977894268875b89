"""SDE and ODE steps against hand-computed values and the scheduler of diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from editr1.config.grpo import MAX_FLOW_NOISE
from editr1.editor.sde import cps_step, flow_sde_step, log_prob, ode_step, transition


def t(value: float) -> torch.Tensor:
    return torch.tensor(value)


def latents(value: float) -> torch.Tensor:
    return torch.full((1, 2, 1), value)


def test_flow_sde_step_matches_hand_computed_values() -> None:
    # sigma 0.5, next 0.25, a 0.8: dt -0.25, s = 0.8 sqrt(0.5 / 0.5) = 0.8, s^2 = 0.64
    # mean = x (1 - 0.64 * 0.25 / 1) + v (1 + 0.64 * 0.5 / 1)(-0.25) = 0.84 x - 0.33 v; std = 0.8 sqrt(0.25) = 0.4
    move = flow_sde_step(latents(2.0), latents(1.0), t(0.5), t(0.25), 0.8)
    assert move.mean.flatten().tolist() == pytest.approx([1.35, 1.35], abs=1e-6)
    assert float(move.std) == pytest.approx(0.4, abs=1e-6)
    assert float(move.diffusion) == pytest.approx(0.8, abs=1e-6)


def test_first_flow_sde_step_uses_next_sigma_in_denominator() -> None:
    # sigma 1, next 0.75, a 0.8: s^2 = 0.64 / (1 - 0.75) = 2.56, x coefficient 1 - a^2/2 = 0.68, v coefficient dt = -0.25
    move = flow_sde_step(latents(1.0), latents(0.0), t(1.0), t(0.75), 0.8)
    assert move.mean.flatten().tolist() == pytest.approx([0.68, 0.68], abs=1e-6)
    move = flow_sde_step(latents(0.0), latents(1.0), t(1.0), t(0.75), 0.8)
    assert move.mean.flatten().tolist() == pytest.approx([-0.25, -0.25], abs=1e-6)
    assert float(move.std) == pytest.approx(1.6 * 0.5, abs=1e-6)


def test_cps_step_matches_hand_computed_values() -> None:
    # sigma 0.5, next 0.25, a 1/3: std = 0.25 sin(30 deg) = 0.125; x0 = 2 - 0.5 = 1.5; x1 = 2 + 0.5 = 2.5
    # mean = 1.5 * 0.75 + 2.5 sqrt(0.0625 - 0.015625) = 1.125 + 2.5 * 0.2165064
    move = cps_step(latents(2.0), latents(1.0), t(0.5), t(0.25), 1.0 / 3.0)
    assert move.mean.flatten().tolist() == pytest.approx([1.125 + 2.5 * math.sqrt(0.046875)] * 2, abs=1e-6)
    assert float(move.std) == pytest.approx(0.125, abs=1e-6)


def test_cps_preserves_data_and_noise_coefficients() -> None:
    # x = (1 - s) data + s noise becomes (1 - s') data + sqrt(s'^2 - std^2) noise
    data, noise = latents(3.0), latents(-2.0)
    x = 0.4 * data + 0.6 * noise
    move = cps_step(x, noise - data, t(0.6), t(0.4), 0.5)
    expected = 0.6 * 3.0 - 2.0 * math.sqrt(0.16 - float(move.std) ** 2)
    assert move.mean.flatten().tolist() == pytest.approx([expected, expected], abs=1e-6)


@pytest.mark.parametrize("kind", ["flow", "cps"])
def test_step_without_noise_equals_the_scheduler_euler_step(kind: str) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    for i, step in enumerate(scheduler.timesteps):
        sigma, sigma_next = scheduler.sigmas[i], scheduler.sigmas[i + 1]
        expected = scheduler.step(v, step, x, return_dict=False)[0]
        move = transition(kind, x, v, sigma, sigma_next, 0.0)  # type: ignore[arg-type]
        assert torch.allclose(move.mean, expected, atol=1e-6)
        assert float(move.std.abs().max()) == 0.0
        assert torch.allclose(ode_step(x, v, sigma, sigma_next), expected, atol=1e-7)


def test_rows_can_have_different_sigmas() -> None:
    x, v = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    sigma, sigma_next = torch.tensor([0.8, 0.4]), torch.tensor([0.6, 0.2])
    both = flow_sde_step(x, v, sigma, sigma_next, 0.7)
    for i in range(2):
        one = flow_sde_step(x[i : i + 1], v[i : i + 1], sigma[i], sigma_next[i], 0.7)
        assert torch.equal(one.mean[0], both.mean[i])
        assert torch.equal(one.std[0], both.std[i])


def test_log_prob_is_the_mean_gaussian_log_density() -> None:
    sample, mean = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    std = torch.tensor([0.3, 1.0, 2.0]).reshape(3, 1, 1)
    expected = torch.distributions.Normal(mean, std).log_prob(sample).mean(dim=(1, 2))
    assert torch.allclose(log_prob(sample, mean, std), expected, atol=1e-6)


def test_public_cps_log_prob_is_the_negative_mean_square() -> None:
    sample, mean = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[0.0], [1.0]]])
    assert log_prob(sample, mean, t(0.1), "public").tolist() == pytest.approx([-2.5])


def test_last_cps_step_has_no_log_prob() -> None:
    move = cps_step(latents(1.0), latents(1.0), t(0.2), t(0.0), 0.5)
    assert float(move.std) == 0.0
    with pytest.raises(ValueError, match="std 0"):
        log_prob(latents(1.0), move.mean, move.std)


def test_bf16_inputs_give_fp32_results() -> None:
    move = flow_sde_step(latents(1.0).bfloat16(), latents(1.0).bfloat16(), t(0.5), t(0.25), 0.8)
    assert move.mean.dtype == move.std.dtype == torch.float32
    assert log_prob(latents(1.0).bfloat16(), move.mean, move.std).dtype == torch.float32


@pytest.mark.parametrize("after", [0.5, 0.9, 0.99])
def test_first_step_at_maximum_noise_keeps_a_quarter_of_the_latents(after: float) -> None:
    move = flow_sde_step(latents(1.0), latents(0.0), t(1.0), t(after), MAX_FLOW_NOISE)
    assert move.mean.flatten().tolist() == pytest.approx([0.28, 0.28], abs=1e-3)
