"""GCPO stops early if nothing can be learned, and states the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editr1.config.gcpo import GcpoConfig
from editr1.errors import ExitCode
from editr1.telemetry import TrainHooks
from editr1.training_signal import NoTrainingSignal
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.gcpo_metrics import pair_counts
from editr1.verifier.gcpo_rewards import Scores, pair_rewards
from editr1.verifier.rollout_check import RolloutCheck

TIES: list[tuple[Scores, Scores]] = [([5.0, 5.0], [5.0, 5.0])]
RIGHT: list[tuple[Scores, Scores]] = [([9.0, 8.0], [1.0, 2.0])]
UNREADABLE: list[tuple[Scores, Scores]] = [([None, None], [5.0, None])]
SIGNAL: list[tuple[Scores, Scores]] = [([9.0, 1.0], [5.0, 5.0])]


def check(first_rollouts: int | None = 3, rollouts: int = 10) -> RolloutCheck:
    return RolloutCheck(Path("pairs.parquet"), max_new_tokens=8, first_rollouts=first_rollouts, rollouts=rollouts)


def counts(sides: list[tuple[Scores, Scores]]) -> dict[str, float]:
    pairs = [(winner, loser, pair_rewards(winner, loser)) for winner, loser in sides]
    return pair_counts(pairs, [([1] * len(winner), [1] * len(loser)) for winner, loser in sides])


@pytest.mark.parametrize(
    ("sides", "truncated", "cause"),
    [
        (UNREADABLE, 4, r"all 12 traces were cut off at max_new_tokens 8, before their score; raise max_new_tokens"),
        (
            UNREADABLE,
            1,
            r"9 of 12 traces have no score that can be parsed \(3 were cut off .* the first one: no <score> tag",
        ),
        (TIES, 0, r"all 12 comparisons are ties"),
        (RIGHT, 0, r"already orders all 12 comparisons as the preferences do"),
        (TIES + RIGHT, 0, r"received the same reward \(12 of 24 comparisons are correct, 12 are ties, 0 of 24 traces"),
    ],
)
def test_cause_is_given_with_its_numbers(sides: list[tuple[Scores, Scores]], truncated: int, cause: str) -> None:
    watched = check()
    for _ in range(2):
        watched.record(counts(sides), truncated, "no <score> tag")
    with pytest.raises(
        NoTrainingSignal, match=rf"pairs\.parquet: no pair had a signal in the first 3 rollouts.*{cause}"
    ):
        watched.record(counts(sides), truncated, "no <score> tag")


def test_one_pair_with_a_signal_keeps_the_training_running() -> None:
    watched = check()
    for sides in (TIES, TIES, SIGNAL + TIES, *[TIES] * 7):
        watched.record(counts(sides), 0, None)


def test_resumed_training_is_stopped_only_if_the_log_covers_all_rollouts() -> None:
    logged: dict[str, Any] = {"step": 2, "gcpo/pairs": 4.0, "gcpo/pairs_without_signal": 4.0}
    resumed = check()
    resumed.resume(2, 2, [logged])
    with pytest.raises(NoTrainingSignal):
        resumed.record(counts(TIES), 0, None)
    for rollouts, history in ((4, [logged]), (2, [{**logged, "gcpo/pairs_without_signal": 3.5}])):
        other = check()
        other.resume(rollouts, rollouts, history)
        for _ in range(6):
            other.record(counts(TIES), 0, None)


def test_training_whose_traces_are_all_cut_off_stops_with_a_permanent_exit_code(
    tiny: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    config = GcpoConfig(
        rollouts=3, pairs_per_rollout=4, num_traces=2, max_new_tokens=8, warmup_steps=0, device="cpu",
        max_rollouts_without_signal=2,
    )  # fmt: skip
    arguments: dict[str, Any] = {"model": tiny, "pairs": write_pairs(4), "hooks": TrainHooks()}
    with pytest.raises(
        NoTrainingSignal, match=r"first 2 rollouts.* all 32 traces were cut off at max_new_tokens 8"
    ) as stop:
        train_gcpo(config, output_dir=tmp_path / "out", **arguments)
    assert stop.value.exit_code == ExitCode.DATA
    assert not list((tmp_path / "out").glob("*.safetensors"))
    unlimited = config.model_copy(update={"max_rollouts_without_signal": None})
    assert train_gcpo(unlimited, output_dir=tmp_path / "other", **arguments)["no_signal_rate"] == 1.0
