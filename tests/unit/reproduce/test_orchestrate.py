"""Order and number of the started runs, and runs whose dependencies failed, tested with fake processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from editr1.artifacts import ArtifactStore, DigestMismatch
from editr1.config.loader import ConfigError
from editr1.config.reproduce import SMALLEST
from editr1.launch.local.lock import lock
from editr1.launch.orchestrator import RunStopped
from editr1.reproduce import orchestrate
from editr1.reproduce.claims import Outcome, make_comparisons, select_claims
from editr1.reproduce.results import Reproduction
from editr1.runs.record import RunRecord
from editr1.runs.spec import RunSpec


class FakeProcess:
    """Fake process of a run that exits with ``code`` at its third poll. ``alive`` contains the runs that have not ended."""

    alive: ClassVar[set[str]] = set()
    started: ClassVar[list[str]] = []
    max_alive: ClassVar[int] = 0
    stopped: ClassVar[set[str]] = set()
    code: ClassVar[int] = 1

    def __init__(self, spec: RunSpec, runs: Path) -> None:
        self.name, self._polls, self._stop_requested = spec.metadata.name, 0, False
        self.started_at = time.monotonic()
        FakeProcess.started.append(self.name)
        FakeProcess.alive.add(self.name)
        FakeProcess.max_alive = max(FakeProcess.max_alive, len(FakeProcess.alive))

    def poll(self) -> int | None:
        self._polls += 1
        if self._polls < 3:
            return None
        FakeProcess.alive.discard(self.name)
        return FakeProcess.code

    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def progress(self) -> list[tuple[str, dict[str, Any]]]:
        return [("curate", {"phase": "work", "done": 1, "total": 2})] if self._polls == 1 else []

    def failure_reason(self, store: ArtifactStore) -> str:
        return "stage curate: the disk is full"

    def request_stop(self) -> None:
        self._stop_requested = True

    def wait(self, grace: float) -> None:
        assert self._stop_requested
        FakeProcess.stopped.add(self.name)


class RecordingObserver:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def results_updated(self, found: Reproduction) -> None:
        self.events.append(("results_updated", str(found.seeds)))

    def __getattr__(self, name: str) -> Any:
        return lambda item, *rest: self.events.append((name, item.run))


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrate, "RunProcess", FakeProcess)
    monkeypatch.setattr(orchestrate, "POLL_SECONDS", 0.0)
    (
        FakeProcess.alive,
        FakeProcess.started,
        FakeProcess.max_alive,
        FakeProcess.stopped,
        FakeProcess.code,
    ) = set(), [], 0, set(), 1


def run(
    folder: Path, only: str, parallel: int, should_stop: Any = lambda: False
) -> tuple[Reproduction, RecordingObserver]:
    seen = RecordingObserver()
    request = orchestrate.ReproductionRequest(
        comparisons=select_claims(make_comparisons(SMALLEST), [only]),
        seeds=[7, 8],
        budget=SMALLEST,
        folder=folder,
        command="c",
        parallel=parallel,
    )
    return orchestrate.reproduce(request, seen, should_stop), seen


@pytest.mark.parametrize("parallel", [1, 3])
def test_failed_experiment_fails_only_its_dependents(tmp_path: Path, parallel: int) -> None:
    found, seen = run(tmp_path, "curation", parallel)
    data_runs = [f"s{seed}-{name}" for seed in (7, 8) for name in ("data", "data-t", "data-v", "data-holistic")]
    assert sorted(FakeProcess.started) == sorted(data_runs)
    assert FakeProcess.max_alive == parallel
    assert found.failed["s7-data"] == "stage curate: the disk is full"
    assert found.failed["s7-tv"] == "s7-data failed"
    assert len(found.failed) == 16
    assert {part.outcome for part in found.comparisons} == {Outcome.MISSING}
    assert ("experiment_progress", "s8-data") in seen.events
    assert seen.events.count(("experiment_ended", "s7-tv")) == 1
    assert seen.events[-1] == ("results_updated", "(7, 8)")


def test_stop_lets_every_active_run_commit_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunStopped):
        run(tmp_path, "curation", 2, should_stop=lambda: len(FakeProcess.started) == 2)
    assert FakeProcess.stopped == set(FakeProcess.started)
    assert not (tmp_path / "reproduction.json").exists()


def test_unreadable_results_fail_their_experiment_and_not_the_reproduction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise DigestMismatch("file:///x: blob sha256:00 is damaged")

    FakeProcess.code = 0
    monkeypatch.setattr(orchestrate.CollectedResults, "add", damaged)
    record = RunRecord(name="r", seed=7, created=0.0)
    monkeypatch.setattr(orchestrate, "load_record", lambda *_: record)
    found, _ = run(tmp_path, "curation", 2)
    assert "blob sha256:00 is damaged" in found.failed["s7-data"]
    assert "runs/s7-data to run it again" in found.failed["s7-data"]
    assert found.failed["s7-tv"] == "s7-data failed"


def test_second_reproduction_in_one_folder_is_refused(tmp_path: Path) -> None:
    with (
        lock(tmp_path / ".lock", ""),
        pytest.raises(ConfigError, match="another reproduction is running in this folder"),
    ):
        run(tmp_path, "curation", 1)
