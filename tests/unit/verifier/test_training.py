"""Metrics and errors that HooksCallback reports."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from editr1.config.loader import ConfigError
from editr1.config.sft import SftConfig
from editr1.parallel.context import DistributedContext
from editr1.telemetry import TrainHooks
from editr1.verifier import training
from editr1.verifier.sft import train_sft
from editr1.verifier.training import HooksCallback, tail_means


def test_tokens_per_second_after_a_resume_exclude_earlier_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    callback = HooksCallback(TrainHooks(), DistributedContext(), "gcpo", lambda logs: {})
    state = TrainerState(global_step=2, max_steps=4, num_input_tokens_seen=1000)
    arguments, control = TrainingArguments(report_to=[]), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    state.global_step = 3
    callback.on_log(arguments, state, control, {"num_tokens": 1100.0})
    assert callback.history == [{"tokens_per_second": 50.0}]


def test_final_metrics_of_a_resumed_training_cover_the_whole_training() -> None:
    callback = HooksCallback(TrainHooks(), DistributedContext(), "sft", lambda logs: {"loss": logs["loss"]})
    before = [{"loss": float(50 - step), "step": step} for step in range(1, 20)]
    state = TrainerState(global_step=19, max_steps=20, log_history=before)
    arguments, control = TrainingArguments(report_to=[]), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    state.global_step = 20
    callback.on_log(arguments, state, control, {"loss": 11.0})
    assert tail_means(callback.history) == {"loss": (31.0 + 11.0) / 2}


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (2.0, float("nan"))])
def test_diverged_training_fails_and_reports_its_learning_rate(loss: float, norm: float) -> None:
    callback = HooksCallback(TrainHooks(), DistributedContext(), "sft", lambda logs: {"loss": logs["loss"]})
    state = TrainerState(global_step=2, max_steps=20, is_world_process_zero=False)
    arguments = TrainingArguments(report_to=[], learning_rate=0.5)
    callback.on_log(arguments, state, TrainerControl(), {"loss": 1.5, "grad_norm": 3.0})
    state.global_step = 3
    expected = (
        rf"learning_rate 0\.5: the training diverged: loss {loss:g} and .* step 3 of 20, after loss 1\.5 at step 2"
    )
    with pytest.raises(ConfigError, match=expected):
        callback.on_log(arguments, state, TrainerControl(), {"loss": loss, "grad_norm": norm})


def test_first_step_that_is_not_finite_does_not_blame_the_learning_rate() -> None:
    callback = HooksCallback(TrainHooks(), DistributedContext(), "sft", lambda logs: {"loss": logs["loss"]})
    state = TrainerState(global_step=0, max_steps=20, is_world_process_zero=False)
    arguments = TrainingArguments(report_to=[], learning_rate=0.5)
    callback.on_train_begin(arguments, state, TrainerControl())
    state.global_step = 1
    with pytest.raises(ConfigError, match=r"^loss nan .* step 1 of 20, before the first update .* is not the cause"):
        callback.on_log(arguments, state, TrainerControl(), {"loss": float("nan"), "grad_norm": float("nan")})


def test_training_whose_weights_overflow_is_not_saved(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    config = SftConfig(max_steps=3, batch_size=4, warmup_steps=0, learning_rate=1e38, log_every=10, device="cpu")
    with pytest.raises(ConfigError, match=r"learning_rate 1e\+38: the training diverged"):
        train_sft(config, model=tiny, rows=write_rows(8), output_dir=tmp_path / "out", hooks=TrainHooks())
    assert not list((tmp_path / "out").glob("*.safetensors"))
