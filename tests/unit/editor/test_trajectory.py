"""Scores and advantages are joined to samples by sample id."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editr1.editor.policies.base import Condition, Size
from editr1.editor.trajectory import TrajectoryBatch, attach_advantages, attach_scores


def batch(*sample_ids: int) -> TrajectoryBatch:
    size = len(sample_ids)
    return TrajectoryBatch(
        condition=Condition({"text": torch.zeros(1, 2)}, {}, Size(16, 16)),
        sample_ids=torch.tensor(sample_ids),
        group_keys=torch.tensor(sample_ids) // 2,
        condition_rows=torch.zeros(size, dtype=torch.int64),
        window_starts=torch.zeros(size, dtype=torch.int64),
        sigmas=torch.linspace(1.0, 0.0, 5),
        latents=torch.zeros(size, 3, 4, 2),
        log_probs=torch.zeros(size, 2),
        final_latents=torch.zeros(size, 4, 2),
        valid_mask=torch.ones(size, dtype=torch.bool),
    )


ALL_VALID = torch.ones(3, dtype=torch.bool)


def test_scores_in_any_order_are_assigned_by_sample_id() -> None:
    valid_mask = torch.tensor([True, False, True])
    scores = torch.tensor([2.0, float("nan"), 7.0], dtype=torch.float64)
    first, second = attach_scores([batch(7, 2), batch(4)], torch.tensor([2, 4, 7]), scores, valid_mask)
    assert first.scores is not None
    assert first.scores.tolist() == [7.0, 2.0]
    assert first.valid_mask.tolist() == [True, True]
    assert second.valid_mask.tolist() == [False]


def test_missing_score_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"no score for samples \[4\]"):
        attach_scores([batch(7, 2), batch(4)], torch.tensor([2, 7]), torch.zeros(2), ALL_VALID[:2])


def test_score_of_unknown_sample_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"unknown sample ids in the scores: \[9\]"):
        attach_scores([batch(7, 2)], torch.tensor([2, 7, 9]), torch.zeros(3), ALL_VALID)


def test_duplicate_scores_of_a_sample_are_rejected() -> None:
    with pytest.raises(ValueError, match="each sample needs a unique id"):
        attach_scores([batch(7, 2)], torch.tensor([2, 7, 7]), torch.zeros(3), ALL_VALID)


def test_failed_samples_have_no_signal_and_samples_of_other_processes_are_ignored() -> None:
    scored = attach_scores([batch(1, 0)], torch.tensor([0, 1]), torch.zeros(2), torch.tensor([False, True]))
    values = torch.tensor([0.0, -1.0, 1.0, 0.5])
    signal_mask = torch.tensor([True, True, True, True])
    (attached,) = attach_advantages(scored, torch.tensor([5, 1, 3, 0]), values, signal_mask)
    assert attached.advantages is not None
    assert attached.advantages.tolist() == [-1.0, 0.5]
    assert attached.signal_mask is not None
    assert attached.signal_mask.tolist() == attached.valid_mask.tolist() == [True, False]
    with pytest.raises(ValueError, match=r"no advantage for samples \[1\]"):
        attach_advantages(scored, torch.tensor([0]), values[:1], signal_mask[:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_keys": torch.zeros(1, dtype=torch.int64)}, "group_keys has 1 rows, but log_probs has 2"),
        ({"latents": torch.zeros(2, 2, 4, 2)}, "latents hold 2 states for 2 steps; expected 3"),
        ({"group_keys": torch.zeros(2)}, "group_keys must be int64"),
        ({"valid_mask": torch.ones(2)}, "valid_mask must be bool"),
        ({"sample_ids": torch.zeros(2, dtype=torch.int64)}, "duplicate sample ids"),
    ],
)
def test_inconsistent_batch_is_rejected(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(batch(0, 1), **changes)  # type: ignore[arg-type]
