"""A process that writes no heartbeat is noticed; time in which the observer itself did not run is not counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from editr1.parallel import heartbeat
from editr1.parallel.heartbeat import FOLDER_VARIABLE, HeartbeatWatch, rank_file, stage_file, start_heartbeat


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def observe(watch: HeartbeatWatch, clock: Clock, seconds: float, step: float = 5.0) -> heartbeat.Silence | None:
    """Observe every ``step`` seconds for ``seconds``, and return the last silence."""
    silence = None
    for _ in range(round(seconds / step)):
        clock.now += step
        silence = watch.observe()
    return silence


def test_process_that_never_writes_a_heartbeat_is_named_and_then_over_its_timeout(tmp_path: Path) -> None:
    clock = Clock()
    watch = HeartbeatWatch(tmp_path / "missing", "rank 1", 42, 300.0, clock)
    assert observe(watch, clock, 55.0) is None
    silence = observe(watch, clock, 10.0)
    assert silence is not None and not silence.is_over_timeout
    assert f"rank 1 (process 42 on {silence.host}) has been silent since" in str(silence)
    assert "it is killed after 5 min" in str(silence)
    silence = observe(watch, clock, 240.0)
    assert silence is not None and silence.is_over_timeout and "it is killed now" in str(silence)


def test_heartbeat_ends_the_silence_whatever_the_clock_of_the_process_says(tmp_path: Path) -> None:
    file, clock = tmp_path / "rank-0", Clock()
    watch = HeartbeatWatch(file, "rank 0", 42, 300.0, clock)
    assert observe(watch, clock, 200.0) is not None
    file.touch()
    assert observe(watch, clock, 50.0) is None
    os.utime(file, (0, 0))  # a clock that is far behind
    assert observe(watch, clock, 50.0) is None
    assert observe(watch, clock, 50.0) is not None


def test_left_over_file_of_an_earlier_attempt_is_no_heartbeat(tmp_path: Path) -> None:
    file, clock = tmp_path / "rank-0", Clock()
    file.touch()
    silence = observe(HeartbeatWatch(file, "rank 0", 42, 300.0, clock), clock, 300.0)
    assert silence is not None and silence.is_over_timeout


def test_time_in_which_the_computer_slept_does_not_count(tmp_path: Path) -> None:
    clock = Clock()
    watch = HeartbeatWatch(tmp_path / "missing", "rank 1", 42, 300.0, clock)
    assert observe(watch, clock, 7200.0, step=3600.0) is None


@pytest.mark.parametrize(("rank", "file"), [(None, stage_file), ("3", lambda folder: rank_file(folder, 3))])
def test_process_writes_the_file_that_its_parent_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str | None, file: object
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(heartbeat, "_beat", started.append)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    start_heartbeat()
    assert not started
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    if rank:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("LOCAL_RANK", rank)
    start_heartbeat()
    assert started == [file(tmp_path)]  # type: ignore[operator]
