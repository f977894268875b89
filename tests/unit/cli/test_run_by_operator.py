"""``editr1 run --on kubernetes`` on clusters with and without the operator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import open_store
from editr1.cli.editruns import OperatorOptions, OperatorRun, run_by_operator
from editr1.cli.view import RunView
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.runs.partial import accept
from editr1.runs.record import Missing, RunRecord, StageRecord, StageResult, State, save_record, save_result
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec

SPEC = RunSpec(
    api_version=API_VERSION,
    kind="EditRun",
    metadata=Metadata(name="quick"),
    spec=RunBody(stages=[StageSpec(name="curate", kind="curate")]),
)


class FakeNamespace:
    """In-memory namespace with at most one EditRun, which has the given status from its creation on."""

    namespace = "lab"

    def __init__(self, missing: list[str], status: dict[str, Any]) -> None:
        self.client = SimpleNamespace(missing_kinds=lambda _kinds: missing)
        self.created: dict[str, Any] | None = None
        self._status = status

    def get(self, _kind: str, _name: str) -> dict[str, Any] | None:
        return self.created

    def delete(self, _kind: str, _name: str) -> None:
        self.created = None

    def create(self, body: dict[str, Any]) -> None:
        meta = {**body["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.created = {**body, "metadata": meta, "status": self._status}


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the signal handlers, which the command replaces when it follows a run."""
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


def submit(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    api: FakeNamespace,
    *,
    detach: bool = False,
    use_operator: bool = True,
) -> OperatorRun | None:
    monkeypatch.setattr("editr1.launch.kubernetes.connect.connect", lambda _config: SimpleNamespace(api=api))
    store = StoreConfig(url=(folder / "store").as_uri())
    cluster, options = ClusterConfig(use_operator=use_operator), OperatorOptions(detach=detach)
    return run_by_operator(cluster, SPEC, store, folder / "run", RunView(), options)


def test_run_is_not_submitted_if_the_cluster_has_no_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api = FakeNamespace(["EditRun"], {})
    assert submit(monkeypatch, tmp_path, api) is None
    with pytest.raises(ConfigError, match="--detach: the cluster has no Edit-R1 operator"):
        submit(monkeypatch, tmp_path, api, detach=True)
    assert api.created is None


def test_run_can_do_without_the_operator_of_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    api = FakeNamespace([], {})
    assert submit(monkeypatch, tmp_path, api, use_operator=False) is None
    assert api.created is None
    with pytest.raises(ConfigError, match="--detach needs the operator"):
        submit(monkeypatch, tmp_path, api, use_operator=False, detach=True)
    submit(monkeypatch, tmp_path, api, detach=True)
    with pytest.raises(ConfigError, match="an operator may execute the same run; delete it with: editr1 cancel quick"):
        submit(monkeypatch, tmp_path, api, use_operator=False)


def test_detached_run_is_created_and_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeNamespace([], {})
    assert submit(monkeypatch, tmp_path, api, detach=True) == OperatorRun(code=ExitCode.DONE)
    assert api.created is not None and api.created["metadata"]["name"] == "quick"
    assert "created run quick in namespace lab" in capsys.readouterr().err


def test_followed_run_returns_the_record_that_the_operator_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts = [{"started": 1.0, "ended": 2.0, "exit_code": 0}]
    stage = {"name": "curate", "kind": "curate", "state": "Done", "attempts": attempts}
    api = FakeNamespace([], {"state": "Done", "stages": [stage]})
    with pytest.raises(ConfigError, match="has no record"):
        submit(monkeypatch, tmp_path, api)
    api.created = None
    record = RunRecord(name="quick", seed=0, created=0.0)
    save_record(open_store(StoreConfig(url=(tmp_path / "store").as_uri())), record)
    first = submit(monkeypatch, tmp_path, api)
    assert first is not None and first.record is not None and first.record.name == "quick" and first.any_started
    again = submit(monkeypatch, tmp_path, api)
    assert again is not None and not again.any_started, "the run had already ended"
    assert (tmp_path / "run" / "spans.jsonl").exists()


def test_same_command_creates_a_finished_run_with_a_partial_result_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = FakeNamespace([], {"state": "Done", "stages": [{"name": "curate", "kind": "curate", "state": "Done"}]})
    store = open_store(StoreConfig(url=(tmp_path / "store").as_uri()))
    submit(monkeypatch, tmp_path, api, detach=True)
    stage = StageRecord(name="curate", kind="curate", key="k", state=State.DONE)
    record = RunRecord(name="quick", seed=0, created=0.0, stages={"curate": stage})
    save_record(store, record)
    result = StageResult(key="k", missing=Missing(causes={"think: UnreadableAnswer": 1}, total=2))
    save_result(store, "quick", "curate", result)
    capsys.readouterr()
    submit(monkeypatch, tmp_path, api, detach=True)
    assert "created run quick" in capsys.readouterr().err
    accept(store, record, "curate")
    submit(monkeypatch, tmp_path, api, detach=True)
    assert "attached to run quick" in capsys.readouterr().err
