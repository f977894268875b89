"""What a training reports of itself."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from editr1.telemetry import TrainHooks
from editr1.verifier import training
from editr1.verifier.training import HooksCallback


def test_the_speed_after_a_resume_counts_no_tokens_from_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    callback = HooksCallback(TrainHooks(), "gcpo", lambda logs: {})
    state = TrainerState(global_step=2, max_steps=4, num_input_tokens_seen=1000)
    arguments, control = TrainingArguments(report_to=[]), TrainerControl()
    callback.on_train_begin(arguments, state, control)
    state.global_step = 3
    callback.on_log(arguments, state, control, {"num_tokens": 1100.0})
    assert callback.history == [{"tokens_per_second": 50.0}]
