"""Advantages, loss, KL, SDE window, EMA and settings against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from editr1.config.grpo import GrpoConfig
from editr1.editor.advantages import group_advantages, shuffle_within_groups
from editr1.editor.ema import Ema
from editr1.editor.grpo_loss import grpo_loss
from editr1.editor.kl import kl_divergence
from editr1.editor.sde import Transition
from editr1.editor.window import draw_window


def keys(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_group_std_advantages_match_hand_computed_values() -> None:
    # group 0: 1, 3 (mean 2, std 1); group 1: 4, 8 (mean 6, std 2)
    rewards = torch.tensor([1.0, 3.0, 4.0, 8.0])
    result = group_advantages(rewards, torch.ones(4, dtype=torch.bool), keys(0, 0, 1, 1), std="group")
    expected = [-1 / 1.0001, 1 / 1.0001, -2 / 2.0001, 2 / 2.0001]
    assert result.values.tolist() == pytest.approx(expected, abs=1e-6)


def test_batch_std_advantages_match_hand_computed_values() -> None:
    rewards = torch.tensor([1.0, 3.0, 4.0, 8.0])  # mean 4, population std sqrt((9 + 1 + 0 + 16) / 4) = sqrt(6.5)
    result = group_advantages(rewards, torch.ones(4, dtype=torch.bool), keys(0, 0, 1, 1), std="batch")
    d = math.sqrt(6.5) + 1e-4
    assert result.values.tolist() == pytest.approx([-1 / d, 1 / d, -2 / d, 2 / d], abs=1e-6)


@pytest.mark.parametrize("std", ["group", "batch"])
def test_group_with_equal_scores_is_masked_and_counted(std: str) -> None:
    rewards = torch.tensor([7.0, 7.0, 1.0, 3.0])
    result = group_advantages(rewards, torch.ones(4, dtype=torch.bool), keys(5, 5, 9, 9), std=std)  # type: ignore[arg-type]
    assert result.zero_spread == 1
    assert result.groups == 2
    assert result.signal_mask.tolist() == [False, False, True, True]
    assert result.values[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("std", ["group", "batch"])
def test_failed_score_is_masked_and_does_not_affect_others(std: str) -> None:
    with_failure = group_advantages(
        torch.tensor([1.0, float("nan"), 3.0, 4.0, 8.0]),
        torch.tensor([True, False, True, True, True]),
        keys(0, 0, 0, 1, 1),
        std=std,  # type: ignore[arg-type]
    )
    without = group_advantages(
        torch.tensor([1.0, 3.0, 4.0, 8.0]),
        torch.ones(4, dtype=torch.bool),
        keys(0, 0, 1, 1),
        std=std,  # type: ignore[arg-type]
    )
    assert with_failure.failed == 1
    assert not with_failure.signal_mask[1]
    assert with_failure.values[with_failure.signal_mask].tolist() == pytest.approx(without.values.tolist())


def test_group_with_one_valid_score_is_masked() -> None:
    valid_mask = torch.tensor([True, False, True, True])
    result = group_advantages(torch.tensor([1.0, 0.0, 2.0, 4.0]), valid_mask, keys(0, 0, 1, 1))
    assert result.signal_mask.tolist() == [False, False, True, True]


def test_no_sample_is_valid_if_all_scores_failed() -> None:
    result = group_advantages(torch.full((2,), float("nan")), torch.zeros(2, dtype=torch.bool), keys(0, 0))
    assert result.values.tolist() == [0.0, 0.0]
    assert not result.signal_mask.any()
    assert result.failed == 2


def test_advantages_are_clipped_to_five() -> None:
    rewards = torch.cat([torch.zeros(99), torch.tensor([10.0])])
    result = group_advantages(
        rewards, torch.ones(100, dtype=torch.bool), torch.zeros(100, dtype=torch.long), std="group"
    )
    assert float(result.values.max()) == 5.0


def test_group_keys_must_be_integers() -> None:
    with pytest.raises(TypeError, match="int32 or int64"):
        group_advantages(torch.zeros(2), torch.ones(2, dtype=torch.bool), torch.zeros(2))


def test_clipped_surrogate_matches_hand_computed_values() -> None:
    # Clip range 0.1 clips the ratios 1.2, 1.2, 0.7 to 1.1, 1.1, 0.9.
    # With advantages 1, -1, -1, the losses -min(ratio * advantage, clipped ratio * advantage) are -1.1, 1.2, 0.9.
    old = torch.zeros(3)
    new = torch.log(torch.tensor([1.2, 1.2, 0.7]))
    valid_mask = torch.ones(3, dtype=torch.bool)
    result = grpo_loss(new, old, torch.tensor([1.0, -1.0, -1.0]), valid_mask, clip_bounds=(0.9, 1.1))
    assert float(result.loss) == pytest.approx(-1.1 + 1.2 + 0.9, abs=1e-6)
    assert result.clipped.tolist() == [True, False, True]


def test_invalid_sample_adds_neither_loss_nor_gradient() -> None:
    new = torch.zeros(2, requires_grad=True)
    result = grpo_loss(
        new, torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([True, False]), clip_bounds=(0.9, 1.1)
    )
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert new.grad.tolist() == [-1.0, 0.0]


def test_kl_kinds_match_hand_computed_values() -> None:
    # dmean 0.2, s 0.8, std 0.4: 0.04 / 1.28; 0.04 / 0.32; velocity 0.5^2
    std, s = torch.full((1, 1, 1), 0.4), torch.full((1, 1, 1), 0.8)
    policy = Transition(torch.full((1, 2, 1), 1.2), std, s)
    reference = Transition(torch.full((1, 2, 1), 1.0), std, s)
    v, v_reference = torch.full((1, 2, 1), 1.5), torch.full((1, 2, 1), 1.0)
    args = (policy, reference, v, v_reference)
    assert float(kl_divergence("flow_grpo", *args)) == pytest.approx(0.03125, abs=1e-6)
    assert float(kl_divergence("gaussian", *args)) == pytest.approx(0.125, abs=1e-6)
    assert float(kl_divergence("velocity", *args)) == pytest.approx(0.25, abs=1e-6)


def test_gaussian_kl_agrees_with_torch() -> None:
    a, b = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    std = torch.full((3, 1, 1), 0.3)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(a, std), torch.distributions.Normal(b, std)
    ).mean(dim=(1, 2))
    got = kl_divergence("gaussian", Transition(a, std, std), Transition(b, std, std), a, b)
    assert torch.allclose(got, expected, atol=1e-5)


def test_window_is_deterministic_and_moves_between_iterations() -> None:
    starts = [draw_window(0, i, size=3, first=0, end=7) for i in range(60)]
    assert starts == [draw_window(0, i, size=3, first=0, end=7) for i in range(60)]
    assert set(starts) == {0, 1, 2, 3, 4}


def test_group_window_depends_on_the_group_key() -> None:
    starts = {group: draw_window(0, 0, size=1, first=0, end=7, group_key=group) for group in range(40)}
    assert len(set(starts.values())) > 1
    assert all(draw_window(0, 0, size=1, first=0, end=7, group_key=g) == start for g, start in starts.items())


def test_ema_matches_hand_computed_values_and_restores_weights() -> None:
    weights = {"w": torch.tensor([1.0])}
    ema = Ema(weights, 0.9)
    weights["w"].fill_(2.0)
    ema.update(weights)
    with ema.applied(weights):
        assert float(weights["w"]) == pytest.approx(1.1)
    assert float(weights["w"]) == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_level": 1.3}, "1.2"),
        ({"noise_level": 1.3, "sde_window_range": (1, 7)}, "1.2"),
        ({"sde": "cps", "noise_level": 1.1}, "CPS"),
        ({"noise_level": 0.0}, "noise_level 0"),
        ({"sde_window_size": 8}, "does not fit"),
        ({"sde_window_range": (0, 8)}, "last step is never trained"),
        ({"sde_window_range": (5, 7)}, "does not fit"),
    ],
)
def test_invalid_settings_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GrpoConfig(**changes)  # type: ignore[arg-type]


def test_default_clip_range_matches_the_log_probability() -> None:
    assert GrpoConfig().clip_bounds == (1 - 1e-4, 1 + 1e-4)
    assert GrpoConfig(sde="cps", cps_logprob="public").clip_bounds == (1 - 1e-5, 1 + 1e-5)
    assert GrpoConfig(sde="cps", cps_logprob="gaussian").clip_bounds == (1 - 1e-4, 1 + 1e-4)
    assert GrpoConfig(clip_range=0.2).clip_bounds == (0.8, 1.2)


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in GrpoConfig.model_fields.items() if not field.description] == []


def test_shuffled_scores_stay_in_their_group_and_are_uncorrelated() -> None:
    groups = torch.arange(40).repeat_interleave(16)
    rewards = torch.arange(640.0)
    valid_mask = torch.arange(640) % 7 != 0
    shuffled = shuffle_within_groups(rewards, valid_mask, groups, seed=3)
    assert torch.equal(shuffled, shuffle_within_groups(rewards, valid_mask, groups, seed=3))
    assert torch.equal(shuffled[~valid_mask], rewards[~valid_mask])
    for key in range(40):
        members = (groups == key) & valid_mask
        assert sorted(shuffled[members].tolist()) == rewards[members].tolist()
    before, after = (x.reshape(40, 16) - x.reshape(40, 16).mean(1, keepdim=True) for x in (rewards, shuffled))
    assert abs(float((before * after).sum() / (before.norm() * after.norm()))) < 0.35
