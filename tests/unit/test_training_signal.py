"""When a training without a signal is stopped."""

from __future__ import annotations

import pytest

from editr1.errors import ExitCode
from editr1.training_signal import NoTrainingSignal, SignalMonitor


def rollouts_until_stop(monitor: SignalMonitor, signals: list[bool]) -> int | None:
    for number, signal in enumerate(signals, start=1):
        if monitor.record(signal):
            return number
    return None


def test_training_stops_after_the_first_rollouts_without_a_signal() -> None:
    assert rollouts_until_stop(SignalMonitor(4, 100), [False] * 100) == 4


def test_short_training_without_a_signal_stops_after_its_last_rollout() -> None:
    assert rollouts_until_stop(SignalMonitor(10, 3), [False] * 3) == 3


@pytest.mark.parametrize("place", range(4))
def test_one_rollout_with_a_signal_among_the_first_keeps_the_training_running(place: int) -> None:
    signals = [number == place for number in range(4)] + [False] * 96
    assert rollouts_until_stop(SignalMonitor(4, 100), signals) is None


def test_monitor_can_be_disabled() -> None:
    assert rollouts_until_stop(SignalMonitor(None, 3), [False] * 3) is None


def test_resumed_training_counts_the_rollouts_before_the_resume() -> None:
    assert rollouts_until_stop(SignalMonitor(4, 100, done=3), [False] * 97) == 1
    assert rollouts_until_stop(SignalMonitor(4, 100, done=3, had_signal=True), [False] * 97) is None


def test_lack_of_a_signal_is_a_permanent_error_of_the_data() -> None:
    assert NoTrainingSignal.exit_code == ExitCode.DATA < 128
