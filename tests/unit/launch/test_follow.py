"""Two processes that start the same run in one store: one executes the run, the other follows it or takes over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.launch.follow import FollowStopped, TakenOver
from editr1.launch.orchestrator import StageFailed
from editr1.runs import claim as claim_module
from editr1.runs.claim import Claim, Heartbeat, Holder, Watch, newest_claim, take
from editr1.runs.name_in_use import NameInUse, stated_settings
from editr1.runs.record import RunRecord, StageRecord, State, load_record, save_record
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec

ELSEWHERE = Holder(host="other-host", machine="another boot", pid=77, born="1", started=1e9)


def spec(seed: int = 0) -> RunSpec:
    body = RunBody(seed=seed, stages=[StageSpec(name="curate", kind="curate")])
    return RunSpec(api_version=API_VERSION, kind="EditRun", metadata=Metadata(name="r"), spec=body)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setattr(claim_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claim_module, "STALE_SECONDS", 1.0)
    monkeypatch.setattr("editr1.launch.follow.POLL_SECONDS", 0.05)
    return open_store(StoreConfig(url=(tmp_path / "run/store").as_uri()))


def elsewhere(
    store: ArtifactStore, state: State = State.RUNNING, stages: dict[str, StageRecord] | None = None
) -> Claim:
    """Claim the run for a process on another machine, and save the record of its run."""
    claim = take(store, "r", None)
    assert claim is not None
    key = "runs/r/claims/000001.json"
    store.put_record(key, ELSEWHERE.model_dump_json().encode())
    stated = stated_settings(spec().spec)
    save_record(store, RunRecord(name="r", seed=0, state=state, created=0.0, stated=stated, stages=stages or {}))
    found = newest_claim(store, "r")
    assert found is not None and found.holder == ELSEWHERE
    found.beat(1)
    return found


class Beating:
    """Context manager that writes the heartbeat of a claim until it exits, like a live process."""

    def __init__(self, claim: Claim) -> None:
        self._claim, self._stop = claim, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        count = 1
        while not self._stop.wait(0.05):
            self._claim.beat(count := count + 1)

    def end(self) -> None:
        """Write the last heartbeat, which releases the run."""
        self._stop.set()
        self._thread.join()
        self._claim.beat(1_000_000, ended=True)

    def __enter__(self) -> Beating:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Waits:
    """Observer that keeps the reasons for which the run waited, and the names of the other events."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.events: list[str] = []

    def run_waits(self, reason: str) -> None:
        self.reasons.append(reason)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.events.append(name)


def test_only_one_of_many_processes_gets_the_claim(store: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: take(store, "r", None), range(8)))
    assert [claim is not None for claim in claims].count(True) == 1


def test_age_of_a_heartbeat_is_measured_on_the_clock_of_the_observer(store: ArtifactStore) -> None:
    claim, now = elsewhere(store), [0.0]
    watch = Watch(claim, clock=lambda: now[0])
    assert watch.is_executing()
    now[0] = 0.9
    assert watch.is_executing()
    claim.beat(2)
    for moment, expected in ((1.5, True), (2.4, True), (2.6, False)):
        now[0] = moment
        assert watch.is_executing() is expected


def test_dead_process_of_this_machine_is_recognized_at_once(store: ArtifactStore) -> None:
    claim = take(store, "r", None)
    assert claim is not None
    claim.beat(1)
    assert Watch(claim).is_executing()
    reused = claim.holder.model_copy(update={"born": "1"})
    assert not Watch(Claim(store, "r", 1, reused)).is_executing()


def test_second_command_follows_the_first_until_it_is_done(scripted: Any, store: ArtifactStore, tmp_path: Path) -> None:
    claim, waits = elsewhere(store), Waits()
    options = {"replace": False, "observer": waits, "folder": tmp_path / "two", "store": StoreConfig(url=store.url)}
    with ThreadPoolExecutor(1) as pool, Beating(claim) as driver_process:
        following = pool.submit(scripted, spec(), options=options)
        time.sleep(1.5)  # longer than STALE_SECONDS
        assert not following.done()
        record = load_record(store, "r")
        assert record is not None
        record.state = State.DONE
        save_record(store, record)
        driver_process.end()
        found, _, _ = following.result(20)
    assert found.state is State.DONE and not found.stages
    assert len(waits.reasons) == 1
    assert (
        "process 77 on other-host, since 2001-09-09" in waits.reasons[0]
        and "this command follows it" in waits.reasons[0]
    )


def test_stale_run_is_taken_over(scripted: Any, store: ArtifactStore) -> None:
    elsewhere(store)
    waits = Waits()
    record, any_started, _ = scripted(spec(), options={"replace": False, "observer": waits})
    assert any_started and record.state is State.DONE
    assert any("takes over" in reason for reason in waits.reasons)


def test_failure_of_a_followed_run_is_reported_with_its_exit_code(scripted: Any, store: ArtifactStore) -> None:
    attempt = {"started": 0.0, "ended": 1.0, "exit_code": 3}
    failed = StageRecord(name="curate", kind="curate", state=State.FAILED, reason="row 7", attempts=[attempt])
    claim = elsewhere(store, State.FAILED, {"curate": failed})
    with ThreadPoolExecutor(1) as pool, Beating(claim) as driver_process:
        following = pool.submit(scripted, spec(), options={"replace": False, "observer": Waits()})
        time.sleep(0.3)
        driver_process.end()
        with pytest.raises(StageFailed, match="curate: row 7") as caught:
            following.result(20)
    assert caught.value.exit_code == 3


def test_other_settings_are_refused_while_the_run_is_driven(scripted: Any, store: ArtifactStore) -> None:
    with Beating(elsewhere(store)):
        with pytest.raises(NameInUse, match="seed: 0 -> 1"):
            scripted(spec(seed=1), options={"replace": False})
        with pytest.raises(ConfigError, match=r"cannot be replaced.*process 77 on other-host"):
            scripted(spec(seed=1), options={"replace": True})


def test_stopping_the_follower_leaves_the_run_to_its_driver(scripted: Any, store: ArtifactStore) -> None:
    with Beating(elsewhere(store)), pytest.raises(FollowStopped, match="continues in process 77") as caught:
        scripted(spec(), lambda: True, options={"replace": False, "observer": Waits()})
    assert caught.value.exit_code == ExitCode.INTERRUPTED


def test_driver_that_lost_its_run_stops_and_does_not_write_the_record(scripted: Any, store: ArtifactStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(scripted, spec(), options={"replace": False}, curate=["sleep"])
        deadline = time.monotonic() + 20
        while (record := load_record(store, "r")) is None or "curate" not in record.stages:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert take(store, "r", newest_claim(store, "r")) is not None
        record.command = "the other process"
        save_record(store, record)
        with pytest.raises(TakenOver):
            running.result(30)
    kept = load_record(store, "r")
    assert kept is not None and kept.command == "the other process"


def test_heartbeat_ends_with_the_process(store: ArtifactStore) -> None:
    claim = take(store, "r", None)
    assert claim is not None
    with Heartbeat(claim):
        time.sleep(0.3)
        count, ended = claim.last_beat()
        assert count > 1 and not ended
    assert claim.last_beat()[1]
