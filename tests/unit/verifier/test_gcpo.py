"""GCPO of a tiny verifier: sampling of pairs, batch layout, training and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOTrainer

from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.parallel.context import DistributedContext
from editr1.telemetry import Interrupted, Progress, TrainHooks
from editr1.verifier.gcpo import GcpoTrainer, train_gcpo
from editr1.verifier.gcpo_rewards import PairRewards
from editr1.verifier.model import load_verifier
from editr1.verifier.pair_layout import PairLayout
from editr1.verifier.pair_sampler import PairSampler
from editr1.verifier.rows import RowCache, pair_rows

QUICK = GcpoConfig(
    rollouts=2, pairs_per_rollout=2, num_traces=2, max_new_tokens=60, warmup_steps=0, learning_rate=1e-3, device="cpu"
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_rollout_has_whole_pairs_and_is_repeated_for_each_micro_step() -> None:
    sampler = PairSampler(5, PairLayout(3), pairs_per_rollout=2, repeats=2, rollouts=3, seed=0)
    rows = list(sampler)
    assert len(rows) == len(sampler) == 3 * 2 * 2 * 2 * 3
    seen = []
    for rollout in range(3):
        block = rows[rollout * 24 : (rollout + 1) * 24]
        assert block[:12] == block[12:]
        for start in (0, 6):
            winner, loser = block[start : start + 3], block[start + 3 : start + 6]
            assert winner == [winner[0]] * 3
            assert winner[0] % 2 == 0
            assert loser == [winner[0] + 1] * 3
            seen.append(winner[0] // 2)
    assert len(set(seen[:4])) == 4  # the first two rollouts form one epoch, which uses no pair twice


def test_order_of_pairs_depends_only_on_the_seed_and_changes_every_epoch() -> None:
    def pairs(seed: int | None) -> list[int]:
        return list(PairSampler(6, PairLayout(1), pairs_per_rollout=3, repeats=1, rollouts=4, seed=seed))[::2]

    assert pairs(1) == pairs(1)
    assert pairs(1) != pairs(2)
    assert sorted(pairs(1)[:6]) == sorted(pairs(1)[6:]) == [0, 2, 4, 6, 8, 10]
    assert pairs(1)[:6] != pairs(1)[6:]
    assert pairs(None)[:6] == [0, 2, 4, 6, 8, 10]


def test_batch_sizes_that_would_split_a_pair_are_rejected() -> None:
    config = GcpoConfig(pairs_per_rollout=16, num_traces=8)
    assert config.rollout_layout(1) == (256, 1)
    assert config.rollout_layout(4) == (64, 1)
    assert config.model_copy(update={"micro_batch_size": 32}).rollout_layout(4) == (32, 2)
    with pytest.raises(ValueError, match="evenly among 3 processes"):
        config.rollout_layout(3)
    with pytest.raises(ValueError, match="micro_batch_size 48"):
        config.model_copy(update={"micro_batch_size": 48}).rollout_layout(1)


def test_training_changes_the_weights_and_reports_metrics(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    progress = Progress(tmp_path / "progress.jsonl")
    metrics = train_gcpo(
        QUICK.model_copy(update={"rollouts": 3, "num_traces": 4}),
        model=writer, pairs=write_pairs(5, same_every=4), output_dir=tmp_path / "out", hooks=TrainHooks(progress=progress),
    )  # fmt: skip
    assert metrics["steps"] == 3
    assert (metrics["pairs"], metrics["pairs_same"]) == (3, 2)
    assert metrics["parse_rate"] > 0.5
    assert metrics["ratio_distance"] == 0  # with one pass, the ratio is 1
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert lines[-1]["done"] == lines[-1]["total"] == 3
    reported = set(lines[-1]["metrics"])
    assert {"pair_win_rate", "pair_tie_rate", "parse_rate", "no_signal_rate", "weighted_advantage", "trace_tokens",
            "clip_fraction", "log_ratio", "positive_rate_follow", "positive_rate_keep", "positive_rate_quality"} <= reported  # fmt: skip
    before, after = weights(writer), weights(tmp_path / "out")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_second_pass_changes_the_ratio_and_micro_batches_do_not_change_the_step(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = write_pairs(4)
    two = QUICK.model_copy(update={"rollouts": 1, "passes": 2, "num_traces": 4})
    metrics = train_gcpo(two, model=writer, pairs=pairs, output_dir=tmp_path / "two", hooks=TrainHooks())
    assert metrics["steps"] == 2
    assert metrics["ratio_distance"] > 0
    one = QUICK.model_copy(update={"rollouts": 1, "num_traces": 4})
    train_gcpo(one, model=writer, pairs=pairs, output_dir=tmp_path / "one", hooks=TrainHooks())
    split = one.model_copy(update={"micro_batch_size": 4})
    train_gcpo(split, model=writer, pairs=pairs, output_dir=tmp_path / "split", hooks=TrainHooks())
    first, second = weights(tmp_path / "one"), weights(tmp_path / "split")
    assert all(torch.allclose(first[name], second[name], atol=3e-4) for name in first)


def test_resumed_training_ends_with_the_same_weights(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = write_pairs(4)
    config = QUICK.model_copy(update={"rollouts": 4})
    train_gcpo(config, model=writer, pairs=pairs, output_dir=tmp_path / "whole", hooks=TrainHooks())
    given: list[Path] = []
    answers = iter([False, True])
    stopping = TrainHooks(should_stop=lambda: next(answers), on_checkpoint=lambda folder, _: given.append(folder))
    with pytest.raises(Interrupted, match="step 2 of 4"):
        train_gcpo(config, model=writer, pairs=pairs, output_dir=tmp_path / "halves", hooks=stopping)
    state = json.loads((given[0] / "trainer_state.json").read_text())
    assert state["num_input_tokens_seen"] > 0  # needed for the tokens per second after a resume
    train_gcpo(
        config, model=writer, pairs=pairs, output_dir=tmp_path / "halves", hooks=TrainHooks(resume_from=given[0])
    )
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_training_stops_only_after_the_last_pass_over_a_rollout(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    steps: list[int] = []
    config = QUICK.model_copy(update={"rollouts": 3, "passes": 2})
    hooks = TrainHooks(should_stop=lambda: True, on_checkpoint=lambda _, step: steps.append(step))
    with pytest.raises(Interrupted):
        train_gcpo(config, model=writer, pairs=write_pairs(2), output_dir=tmp_path / "out", hooks=hooks)
    assert steps == [2]


def test_sampling_from_weights_that_overflowed_names_the_learning_rate(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    config = QUICK.model_copy(update={"rollouts": 3, "num_traces": 4, "learning_rate": 1e38, "log_every": 10})
    with pytest.raises(ConfigError, match=r"learning_rate 1e\+38: the training diverged"):
        train_gcpo(config, model=writer, pairs=write_pairs(4), output_dir=tmp_path / "out", hooks=TrainHooks())


def test_too_few_or_too_long_pairs_are_rejected(tiny: Path, write_pairs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 2 pairs with a winner, but only 1 are available"):
        train_gcpo(QUICK, model=tiny, pairs=write_pairs(1), output_dir=tmp_path / "out", hooks=TrainHooks())
    with pytest.raises(TableError, match="no rows"):
        train_gcpo(QUICK, model=tiny, pairs=write_pairs(2, same_every=1), output_dir=tmp_path / "o", hooks=TrainHooks())
    with pytest.raises(TableError, match=r"row 1: needs \d+ tokens \(5000 of them for the trace\)"):
        long = QUICK.model_copy(update={"max_new_tokens": 5000})
        train_gcpo(long, model=tiny, pairs=write_pairs(3), output_dir=tmp_path / "o", hooks=TrainHooks())


def test_advantages_are_rewards_minus_the_mean_of_the_group(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[float], list[float], torch.Tensor]] = []
    original = GRPOTrainer._generate_and_score_completions

    def watched(self: Any, inputs: Any) -> Any:
        output = original(self, inputs)
        seen.append((list(self._logs["rewards"]["pair_reward"]), list(self._logs["advantages"]), output["advantages"]))
        return output

    monkeypatch.setattr(GcpoTrainer, "_generate_and_score_completions", watched)
    config = QUICK.model_copy(update={"rollouts": 1, "num_traces": 4})
    train_gcpo(config, model=writer, pairs=write_pairs(2), output_dir=tmp_path / "out", hooks=TrainHooks())
    rewards, advantages, used = seen[0]
    expected = [
        value - sum(rewards[start : start + 4]) / 4 for start in range(0, 16, 4) for value in rewards[start : start + 4]
    ]
    assert any(expected)
    assert advantages == pytest.approx(expected, abs=1e-6)
    assert used.tolist() == pytest.approx(expected, abs=1e-6)
    layout = PairLayout(4)
    of_metrics = [PairRewards(tuple(won), tuple(lost)).advantages for won, lost in layout.split(rewards)]
    assert used.tolist() == pytest.approx(layout.join(of_metrics), abs=1e-6)


def test_max_pairs_selects_the_first_pairs_and_shuffle_seed_swaps_about_half(
    writer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    _, processor, template = load_verifier(writer)
    pairs = write_pairs(40, same_every=4)

    def sides(**changes: int) -> list[tuple[bytes, bytes]]:
        name = "-".join(f"{key}{value}" for key, value in changes.items()) or "all"
        cache = RowCache(tmp_path / name, DistributedContext())
        dataset, same = pair_rows(pairs, processor, template, 4096, 60, cache, **changes)
        assert same == 10
        edited = [images[1].tobytes() for images in dataset[:]["images"]]
        return list(zip(edited[0::2], edited[1::2], strict=True))

    everything = sides()
    assert len(everything) == 30
    assert sides(max_pairs=7) == everything[:7]
    shuffled = sides(shuffle_seed=0)
    swapped = [a == (b[1], b[0]) for a, b in zip(shuffled, everything, strict=True)]
    assert all(a == b or was_swapped for a, b, was_swapped in zip(shuffled, everything, swapped, strict=True))
    assert 8 <= sum(swapped) <= 22
    assert sides(shuffle_seed=0) == shuffled
