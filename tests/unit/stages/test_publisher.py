"""Checkpoints wait on the local disk while the store is unreachable, and training goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import AccessDenied, StoreUnreachable
from editr1.artifacts.files import FileObjects
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.job import StageJob
from editr1.runs.record import progress_key
from editr1.stages.runtime import entry, publisher
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.publisher import write_earlier_checkpoints
from editr1.stages.runtime.waiting_checkpoints import MAX_WAITING, WaitingCheckpoints
from editr1.telemetry import Interrupted

KEY = "a" * 64


class Switch:
    """Whether the store can be reached: None, or the error of every access."""

    error: Exception | None = None


@pytest.fixture
def store_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    """Return a switch that makes every access to a local store fail. Delays are short."""
    switch = Switch()
    for name in ("put_bytes", "put_file", "get_bytes", "stream", "size", "keys"):
        original = getattr(FileObjects, name)

        def access(self: Any, *args: Any, original: Callable[..., Any] = original, **options: Any) -> Any:
            if switch.error is not None:
                raise switch.error
            return original(self, *args, **options)

        monkeypatch.setattr(FileObjects, name, access)
    monkeypatch.setattr("editr1.artifacts.reliable.QUICK_DELAYS", (0.0, 0.0))
    monkeypatch.setattr("editr1.artifacts.reliable.REFUSED_DELAYS", ())
    monkeypatch.setattr(publisher, "_FIRST_DELAY", 0.05)
    monkeypatch.setattr(publisher, "_LONGEST_DELAY", 0.05)
    yield switch
    switch.error = None


def job(folder: Path, key: str = KEY, seconds: float = 60) -> StageJob:
    store = StoreConfig(url=(folder / "store").as_uri(), outage_seconds=seconds)
    return StageJob(run="r", stage="sft", kind="sft", key=key, seed=0, store=store, workdir=folder / "work")


def checkpoints(context: StageContext) -> StageCheckpoints:
    return StageCheckpoints(context.store, "r", "sft", KEY)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(exist_ok=True)
    (path / "weights").write_text(f"weights of step {step}")
    return path


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_checkpoints_wait_during_an_outage_and_are_written_after_it(tmp_path: Path, store_down: Switch) -> None:
    context = StageContext(job(tmp_path), lambda: False)
    hooks = context.hooks()
    context.progress.phase("sft", 4)
    store_down.error = StoreUnreachable("down")
    for step in (1, 2, 3):
        folder = checkpoint(tmp_path, step)
        hooks.on_checkpoint(folder, step)
        (folder / "weights").unlink()  # the trainer removes old checkpoints
    assert not context.should_stop()
    waiting = sorted(path.name for path in (tmp_path / "work" / f"waiting-{KEY[:12]}").iterdir())
    assert len(waiting) == MAX_WAITING and waiting[-1] == f"{3:09d}"
    store_down.error = None
    until(lambda: (checkpoints(context).newest() or "").endswith("000000003.json"))
    until(lambda: not any((tmp_path / "work" / f"waiting-{KEY[:12]}").iterdir()))
    until(lambda: b'"phase": "sft"' in (context.store.get_record(progress_key("r", "sft", KEY)) or b""))
    folder = context.hooks().resume_from()
    assert folder is not None and (folder / "weights").read_text() == "weights of step 3"
    until(lambda: not context.publisher._is_retrying())
    hooks.on_checkpoint(checkpoint(tmp_path, 4), 4)
    assert checkpoints(context).newest() == f"{checkpoints(context).prefix}{4:09d}.json"


def test_stage_stops_with_a_retryable_code_when_the_outage_lasts_too_long(tmp_path: Path, store_down: Switch) -> None:
    context = StageContext(job(tmp_path, seconds=0.3), lambda: False)
    hooks = context.hooks()
    store_down.error = StoreUnreachable("down")
    hooks.on_checkpoint(checkpoint(tmp_path, 1), 1)
    until(hooks.should_stop)
    with pytest.raises(StoreUnreachable):
        hooks.on_checkpoint(checkpoint(tmp_path, 2), 2)
    assert entry.exit_code(context.publisher.failure or AssertionError()) == ExitCode.TRANSIENT
    assert len([*(tmp_path / "work" / f"waiting-{KEY[:12]}").iterdir()]) == 2


def test_refused_checkpoint_ends_the_stage_at_once(tmp_path: Path, store_down: Switch) -> None:
    context = StageContext(job(tmp_path), lambda: False)
    hooks = context.hooks()
    store_down.error = AccessDenied("403")
    with pytest.raises(AccessDenied):
        hooks.on_checkpoint(checkpoint(tmp_path, 1), 1)


def test_waiting_checkpoint_of_a_killed_attempt_is_written_by_the_next_one(tmp_path: Path) -> None:
    stage = job(tmp_path)
    waiting = WaitingCheckpoints(stage)
    waiting.add(checkpoint(tmp_path, 5), 5)
    waiting.add(checkpoint(tmp_path, 6), 6)
    (waiting.folder / f"{5:09d}" / "files" / "weights").write_text("damaged")
    (waiting.folder / "000000007.part").mkdir()
    write_earlier_checkpoints(stage, lambda: False)
    context = StageContext(stage, lambda: False)
    assert checkpoints(context).names() == [f"{checkpoints(context).prefix}{6:09d}.json"]
    folder = context.hooks().resume_from()
    assert folder is not None and (folder / "weights").read_text() == "weights of step 6"


def test_waiting_checkpoint_of_another_job_is_not_used(tmp_path: Path) -> None:
    waiting = WaitingCheckpoints(job(tmp_path))
    waiting.add(checkpoint(tmp_path, 5), 5)
    index = waiting.folder / f"{5:09d}" / "waiting.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"key": "b" * 64}))
    write_earlier_checkpoints(job(tmp_path), lambda: False)
    assert StageContext(job(tmp_path), lambda: False).hooks().resume_from() is None


def test_wait_of_a_stage_ends_when_it_is_stopped(tmp_path: Path, store_down: Switch) -> None:
    stop = [False]
    context = StageContext(job(tmp_path), lambda: stop[0])
    store_down.error = StoreUnreachable("down")
    report = context.store.objects._wait  # type: ignore[attr-defined]
    report._report = lambda _: stop.__setitem__(0, True)
    with pytest.raises(Interrupted) as raised:
        context.save_progress()
    assert raised.value.exit_code == ExitCode.TERMINATED
