"""Which cells are started, how many at a time, and what becomes of those whose needs failed; processes are scripted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from editr1.artifacts import ArtifactStore, DigestMismatch
from editr1.config.loader import ConfigError
from editr1.config.reproduce import SMALLEST
from editr1.launch.local.lock import locked
from editr1.launch.orchestrator import RunStopped
from editr1.reproduce import orchestrate as drive
from editr1.reproduce.claims import Outcome, chosen, make_contrasts
from editr1.reproduce.results import Reproduction
from editr1.runs.record import RunRecord
from editr1.runs.spec import RunSpec


class Scripted:
    """A cell's process that fails at its third look; ``alive`` are those that have not ended."""

    alive: ClassVar[set[str]] = set()
    started: ClassVar[list[str]] = []
    most: ClassVar[int] = 0
    stopped: ClassVar[set[str]] = set()
    code: ClassVar[int] = 1

    def __init__(self, spec: RunSpec, runs: Path) -> None:
        self.name, self._looks, self._asked = spec.metadata.name, 0, False
        self.started_at = time.monotonic()
        Scripted.started.append(self.name)
        Scripted.alive.add(self.name)
        Scripted.most = max(Scripted.most, len(Scripted.alive))

    def poll(self) -> int | None:
        self._looks += 1
        if self._looks < 3:
            return None
        Scripted.alive.discard(self.name)
        return Scripted.code

    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def progress(self) -> list[tuple[str, dict[str, Any]]]:
        return [("curate", {"phase": "work", "done": 1, "total": 2})] if self._looks == 1 else []

    def why(self, store: ArtifactStore) -> str:
        return "stage curate: it went wrong"

    def ask_to_stop(self) -> None:
        self._asked = True

    def end(self, grace: float) -> None:
        assert self._asked
        Scripted.stopped.add(self.name)


class Seen:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda item, *rest: self.events.append((name, item.run))


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "CellProcess", Scripted)
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.0)
    Scripted.alive, Scripted.started, Scripted.most, Scripted.stopped, Scripted.code = set(), [], 0, set(), 1


def run(folder: Path, only: str, parallel: int, should_stop: Any = lambda: False) -> tuple[Reproduction, Seen]:
    seen = Seen()
    found = drive.reproduce(
        chosen(make_contrasts(SMALLEST), [only]),
        [7, 8],
        SMALLEST,
        folder,
        command="c",
        watcher=seen,
        should_stop=should_stop,
        parallel=parallel,
    )
    return found, seen


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_cell_that_fails_takes_with_it_only_what_builds_on_it(tmp_path: Path, parallel: int) -> None:
    found, seen = run(tmp_path, "curation", parallel)
    datas = [f"s{seed}-{name}" for seed in (7, 8) for name in ("data", "data-t", "data-v", "data-holistic")]
    assert sorted(Scripted.started) == sorted(datas)
    assert Scripted.most == parallel
    assert found.failed["s7-data"] == "stage curate: it went wrong"
    assert found.failed["s7-tv"] == "s7-data failed"
    assert len(found.failed) == 16
    assert {part.outcome for part in found.contrasts} == {Outcome.MISSING}
    assert ("cell_progress", "s8-data") in seen.events
    assert seen.events.count(("cell_ended", "s7-tv")) == 1


def test_an_asked_stop_lets_every_running_cell_commit_before_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        run(tmp_path, "curation", 2, should_stop=lambda: len(Scripted.started) == 2)
    assert Scripted.stopped == set(Scripted.started)
    assert not (tmp_path / "reproduction.json").exists()


def test_results_that_cannot_be_read_fail_their_cell_and_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise DigestMismatch("file:///x: blob sha256:00 is damaged")

    Scripted.code = 0
    monkeypatch.setattr(drive.Collected, "add", damaged)
    record = RunRecord(name="r", seed=7, created=0.0)
    monkeypatch.setattr(drive, "load_record", lambda *_: record)
    found, _ = run(tmp_path, "curation", 2)
    assert "blob sha256:00 is damaged" in found.failed["s7-data"]
    assert "runs/s7-data it is run again" in found.failed["s7-data"]
    assert found.failed["s7-tv"] == "s7-data failed"


def test_two_calls_in_one_folder_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock", ""), pytest.raises(ConfigError, match="another reproduction is at work here"):
        run(tmp_path, "curation", 1)
