"""Creation, replacement and following of EditRun resources."""

from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes import editruns
from editr1.launch.kubernetes.editruns import EditRuns, RunRejected, exit_code, follow, upload_folders
from editr1.launch.kubernetes.errors import ClusterError
from editr1.launch.kubernetes.run_status import AttemptStatus, Reason, RunState, RunStatus, StageStatus
from editr1.launch.orchestrator import StageFailed
from editr1.runs.live import LiveFiles, LiveProgress
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec


class Api:
    """In-memory replacement for ClusterNamespace."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.created = 0

    def get(self, _kind: str, name: str) -> Any:
        return self.bodies.get(name)

    def create(self, body: dict[str, Any]) -> None:
        self.created += 1
        self.bodies[body["metadata"]["name"]] = body | {
            "metadata": body["metadata"] | {"creationTimestamp": "2026-01-01T00:00:00Z"}
        }

    def delete(self, _kind: str, name: str) -> None:
        del self.bodies[name]

    def set_status(self, name: str, **status: Any) -> None:
        self.bodies[name]["status"] = RunStatus(**status).as_json()


def spec(**config: Any) -> RunSpec:
    stages = [StageSpec(name="curate", kind="curate", config={"labeller": "shapes", **config})]
    return RunSpec(api_version=API_VERSION, kind="EditRun", metadata=Metadata(name="r"), spec=RunBody(stages=stages))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "store").as_uri()))


def test_apply_attaches_to_an_identical_run_and_rejects_a_different_spec() -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    assert runs.apply(spec(), {"note": "x"}) and not runs.apply(spec(), {})
    assert api.created == 1 and api.bodies["r"]["metadata"]["annotations"] == {"note": "x"}
    with pytest.raises(ClusterError, match="already exists with a different spec"):
        runs.apply(spec(seed=4), {})


def test_finished_run_with_a_partial_result_is_created_again() -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    assert not runs.apply(spec(), {}, is_partial=True), "the run has not ended"
    api.set_status("r", state=RunState.DONE)
    assert not runs.apply(spec(), {}) and api.created == 1
    assert runs.apply(spec(), {}, is_partial=True) and api.created == 2


def test_run_with_other_settings_is_replaced_only_on_request_and_once_it_has_ended() -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    with pytest.raises(ClusterError, match="--replace it once it has ended"):
        runs.apply(spec(seed=4), {}, replace=True)
    api.set_status("r", state=RunState.FAILED)
    assert runs.apply(spec(), {}) and api.created == 2
    api.set_status("r", state=RunState.FAILED)
    with pytest.raises(ClusterError, match="choose another --name, or --replace"):
        runs.apply(spec(seed=4), {})
    assert runs.apply(spec(seed=4), {}, replace=True) and api.created == 3
    assert api.bodies["r"]["metadata"]["annotations"] == {"editr1.dev/replace": "true"}


def test_local_folder_is_uploaded_to_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("w")
    stages = [StageSpec(name="rrm", kind="serve", inputs={"model": f"path:{tmp_path / 'model'}"})]
    run = spec().model_copy(update={"spec": RunBody(stages=stages)})
    (changed,) = upload_folders(run, store).spec.stages
    assert store.manifest(changed.inputs["model"]).files[0].path == "weights"


class Watcher:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda stage, *rest: self.events.append((name, stage.name))


def attempt(**values: Any) -> AttemptStatus:
    return AttemptStatus(started=1.0, **values)


def test_follow_reports_the_same_events_as_a_local_run(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editruns, "POLL_SECONDS", 0)
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    LiveFiles(store, "r", "sft", "k").write_progress(LiveProgress(t=1, phase="sft", done=1, total=2))
    skipped = StageStatus(
        name="curate", kind="curate", state=RunState.DONE, reason=Reason.UP_TO_DATE, message="up to date"
    )
    sft = {"name": "sft", "kind": "sft", "key": "k"}
    statuses = [
        [],
        [skipped, StageStatus(**sft, state=RunState.STARTING, attempts=[attempt()], message="no node")],
        [skipped, StageStatus(**sft, state=RunState.RUNNING, attempts=[attempt()])],
        [
            skipped,
            StageStatus(
                **sft,
                state=RunState.WAITING,
                reason=Reason.RETRYING,
                failures=1,
                attempts=[attempt(ended=2.0, exit_code=137)],
            ),
        ],
        [
            skipped,
            StageStatus(**sft, state=RunState.DONE, failures=1, attempts=[attempt(ended=2.0), attempt(ended=3.0)]),
        ],
    ]
    states = iter([*[RunState.RUNNING] * 4, RunState.DONE])
    original = runs.get

    def get(name: str) -> Any:
        api.set_status(name, state=next(states), stages=statuses.pop(0))
        return original(name)

    monkeypatch.setattr(runs, "get", get)
    watcher = Watcher()
    assert follow(runs, "r", store, watcher, lambda: False)
    assert watcher.events == [
        ("stage_skipped", "curate"),
        ("stage_started", "sft"),
        ("stage_waits", "sft"),
        ("stage_progress", "sft"),
        ("stage_retried", "sft"),
        ("stage_started", "sft"),
        ("stage_ended", "sft"),
    ]


def test_failed_run_raises_with_exit_code_of_the_stage(store: ArtifactStore) -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    failed = StageStatus(
        name="curate",
        kind="curate",
        state=RunState.FAILED,
        message="bad row",
        attempts=[attempt(ended=2.0, exit_code=3)],
    )
    api.set_status("r", state=RunState.FAILED, stages=[failed])
    with pytest.raises(StageFailed, match="stage curate: bad row") as caught:
        follow(runs, "r", store, Watcher(), lambda: False)
    assert caught.value.exit_code == 3
    assert exit_code(RunStatus(state=RunState.DONE)) == 0


def test_rejected_run_raises_with_the_reason(store: ArtifactStore) -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    api.set_status("r", state=RunState.FAILED, reason=Reason.INVALID, message="stages: must not be empty")
    with pytest.raises(RunRejected, match="run 'r' was rejected: stages: must not be empty"):
        follow(runs, "r", store, Watcher(), lambda: False)


def test_stop_following_does_not_stop_the_run(store: ArtifactStore) -> None:
    api = Api()
    runs = EditRuns(api)  # type: ignore[arg-type]
    runs.apply(spec(), {})
    assert not follow(runs, "r", store, Watcher(), lambda: True)
    assert "r" in api.bodies
