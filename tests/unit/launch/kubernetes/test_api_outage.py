"""Outages of the Kubernetes API are tolerated and reported by commands and by the launcher."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiException

from editr1.artifacts import open_store, outage
from editr1.artifacts.outage import OutageTolerance
from editr1.cli import editruns as terminal
from editr1.cli import follow
from editr1.cli.common import reporting
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.launch.kubernetes import editruns, helm, launcher
from editr1.launch.kubernetes.errors import ClusterUnreachable, api_error
from editr1.launch.kubernetes.helm import HelmError
from editr1.launch.kubernetes.launcher import KubernetesLauncher, ReleaseHandle, ReleaseRequest
from editr1.launch.kubernetes.run_status import RunState, RunStatus
from editr1.launch.kubernetes.state import Phase, StageState
from editr1.launch.kubernetes.views import PodView, ReleaseView
from editr1.runs.job import StageJob
from editr1.runs.live import LiveFiles

UNREACHABLE = ClusterUnreachable("https://api:6443 cannot be reached: timed out")


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (ApiException(status=503), True),
        (ApiException(status=429), True),
        (ApiException(status=403), False),
        (ApiException(status=409), False),
        (ConnectionResetError("reset"), True),
    ],
)
def test_transient_api_errors_are_distinguished_from_rejections(error: Exception, is_transient: bool) -> None:
    assert isinstance(api_error(error, "https://api"), ClusterUnreachable) is is_transient


def test_outage_tolerance_is_exceeded_after_its_limit_and_reset_by_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    tolerance = OutageTolerance(60)
    assert "retrying" in tolerance.record(UNREACHABLE)
    now[0] += 59
    tolerance.record(UNREACHABLE)
    tolerance.answered()
    now[0] += 59
    tolerance.record(UNREACHABLE)
    now[0] += 60
    with pytest.raises(ClusterUnreachable, match="cannot be reached"):
        tolerance.record(UNREACHABLE)


def test_stage_counts_as_running_during_an_api_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "POLL_SECONDS", 0.0)
    answers: list[Any] = [UNREACHABLE, UNREACHABLE, ReleaseView("r", "lab")]

    def release(_name: str) -> ReleaseView:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    store = StoreConfig(url=tmp_path.as_uri())
    job = StageJob(run="r", stage="sft", kind="sft", key="a" * 64, seed=0, store=store, workdir=tmp_path)
    opened = open_store(store)
    handle = ReleaseHandle(ReleaseRequest("sft", "r", "lab", {}, [], job), LiveFiles(opened, "r", "sft", "k"))
    api: Any = SimpleNamespace(release=release)
    runs = KubernetesLauncher(ClusterConfig(), api, None, opened, tmp_path / "spans")  # type: ignore[arg-type]
    for _ in range(2):
        seen = runs.observe(handle)
        assert seen.running and "cannot be reached" in seen.note
    assert not runs.observe(handle).running, "once the server responds, the missing release is noticed"


class _Runs:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def get(self, _name: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_follow_and_wait_survive_an_api_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(editruns, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(terminal, "POLL_SECONDS", 0.0)
    done = editruns.EditRun.__new__(editruns.EditRun)
    object.__setattr__(done, "name", "r")
    object.__setattr__(done, "status", RunStatus(state=RunState.DONE, started=time.time(), message="done"))
    notes: list[str] = []
    observer: Any = SimpleNamespace(stage_waits=lambda _stage, reason: notes.append(reason))
    store = open_store(StoreConfig(url=tmp_path.as_uri()))
    assert editruns.follow(_Runs(UNREACHABLE, UNREACHABLE, done), "r", store, observer, lambda: False)  # type: ignore[arg-type]
    assert notes == [f"{UNREACHABLE}; retrying"]

    monkeypatch.setattr(editruns, "EditRuns", lambda _api: _Runs(UNREACHABLE, UNREACHABLE, done))
    connection: Any = SimpleNamespace(api=None)
    assert terminal.wait_for(connection, "r", lambda: False, None) == 0
    assert capsys.readouterr().err.count("retrying") == 1


def test_log_following_survives_an_api_outage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "POLL_SECONDS", 0.0)
    over: Any = SimpleNamespace(has_ended=True)
    monkeypatch.setattr(editruns, "EditRuns", lambda _api: _Runs(UNREACHABLE, over, UNREACHABLE, over))
    monkeypatch.setattr("editr1.launch.kubernetes.follow.live_logs", lambda _api, jobs, _stop: iter([f"log of {jobs}"]))
    jobs: Any = lambda _run: [SimpleNamespace(name="r-sft", stage="sft")]  # noqa: E731
    terminal.follow_logs(SimpleNamespace(api=SimpleNamespace(jobs=jobs)), "r", None, lambda: False)  # type: ignore[arg-type]
    assert "log of ['r-sft']" in capsys.readouterr().out


def test_long_api_outage_ends_the_command_with_exit_code_transient() -> None:
    import typer

    with pytest.raises(typer.Exit) as ended, reporting():
        raise UNREACHABLE
    assert ended.value.exit_code == ExitCode.TRANSIENT


def test_following_a_release_survives_repeated_outages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    job = SimpleNamespace(name="r", service=False)
    answers: list[Any] = [UNREACHABLE, UNREACHABLE, [job], UNREACHABLE, [job], [job]]
    observations = iter([(Phase.RUNNING, "Running"), (Phase.SUCCEEDED, "Running"), (Phase.SUCCEEDED, "Succeeded")])

    def jobs() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def overview(_connection: Any, found: Any) -> Any:
        phase, pod = next(observations)
        release = SimpleNamespace(pods=(PodView("p", phase=pod),))
        return SimpleNamespace(
            job=found, release=release, state=StageState(phase), progress=None, attempts=(), files=None
        )

    monkeypatch.setattr("editr1.launch.kubernetes.overview.overview", overview)
    connection: Any = SimpleNamespace(api=SimpleNamespace(jobs=jobs))
    assert follow.follow_releases(connection, ["r"], lambda: False) == 0
    assert answers == [] and capsys.readouterr().err.count("retrying") == 2, "each outage is reported once"


@pytest.mark.parametrize(
    ("message", "error_type"),
    [
        (
            'Error: Kubernetes cluster unreachable: Get "https://api/version": dial tcp: connection refused',
            ClusterUnreachable,
        ),
        ("INSTALLATION FAILED: Post https://api: net/http: TLS handshake timeout", ClusterUnreachable),
        ("execution error at (x): inputs.model is not set", HelmError),
        ('admission webhook "v" denied the request: no', HelmError),
    ],
)
def test_helm_errors_of_an_outage_are_distinguished_from_rejections(message: str, error_type: type[Exception]) -> None:
    assert type(helm._translated(message)) is error_type


def test_submit_retries_until_the_server_responds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "PROGRESS_SECONDS", 0.0)
    errors = [UNREACHABLE, UNREACHABLE, None]

    def chart_of_release(_name: str, _target: Any) -> str | None:
        if error := errors.pop(0):
            raise error
        return None

    installed: list[str] = []
    engine: Any = SimpleNamespace(
        chart_of_release=chart_of_release, install=lambda _chart, name, *_a, **_k: installed.append(name)
    )
    api: Any = SimpleNamespace(target=None, dry_run=lambda _objects: None)
    store = StoreConfig(url=tmp_path.as_uri())
    job = StageJob(run="r", stage="sft", kind="sft", key="a" * 64, seed=0, store=store, workdir=tmp_path)
    runs = KubernetesLauncher(ClusterConfig(), api, engine, open_store(store), tmp_path / "spans")
    runs.submit(ReleaseRequest("sft", "r-sft", "lab", {}, [], job))
    assert installed == ["r-sft"]


OLD_JOB = {"run": "r", "stage": "sft", "key": "old"}


@pytest.mark.parametrize(
    ("chart", "job", "replaced"),
    [
        ("sft-0.1.0", OLD_JOB, True),
        ("sft-0.1.0", None, True),  # The installation was interrupted.
        ("sft-0.1.0", {**OLD_JOB, "run": "r-sft", "stage": "large"}, False),
        ("sft-0.1.0", {**OLD_JOB, "run": "other"}, False),
        ("llm-serve-2.0.0", None, False),
    ],
)
def test_only_releases_of_the_same_stage_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chart: str, job: dict[str, str] | None, replaced: bool
) -> None:
    monkeypatch.setattr(launcher, "state_of", lambda _found: StageState(Phase.RUNNING))
    done: list[str] = []
    engine: Any = SimpleNamespace(
        chart_of_release=lambda _name, _target: chart,
        uninstall=lambda name, _t: done.append(f"uninstall {name}"),
        install=lambda _c, name, *_a, **_k: done.append(f"install {name}"),
    )
    api: Any = SimpleNamespace(
        target=None,
        dry_run=lambda _objects: None,
        job_file=lambda _name: None if job is None else json.dumps(job),
        release=lambda _name: None,
        pods=lambda _name: [],
    )
    store = StoreConfig(url=tmp_path.as_uri())
    wanted = StageJob(run="r", stage="sft", kind="sft", key="b" * 64, seed=0, store=store, workdir=tmp_path)
    runs = KubernetesLauncher(ClusterConfig(), api, engine, open_store(store), tmp_path / "spans")
    request = ReleaseRequest("sft", "r-sft", "lab", {}, [], wanted)
    if replaced:
        runs.submit(request)
        assert done == ["uninstall r-sft", "install r-sft"]
        return
    with pytest.raises(ConfigError, match="does not belong to stage sft of run r"):
        runs.submit(request)
    assert done == []


RUNNING, STUCK = PodView("a", phase="Running"), PodView("b", phase="Running", terminating=True, deletion_deadline=1.0)


@pytest.mark.parametrize(
    ("state", "pods", "running", "code"),
    [
        (StageState(Phase.SUCCEEDED), (RUNNING,), True, None),
        (StageState(Phase.SUCCEEDED), (STUCK,), False, 0),
        (StageState(Phase.SUCCEEDED), (PodView("a", phase="Succeeded"),), False, 0),
        (StageState(Phase.FAILED, "x", 3), (), False, 3),
        (StageState(Phase.MISSING), (), False, 137),
    ],
)
def test_observation_follows_the_state_of_the_release(
    tmp_path: Path, state: StageState, pods: tuple[PodView, ...], running: bool, code: int | None
) -> None:
    api: Any = SimpleNamespace(namespace="lab")
    store = StoreConfig(url=tmp_path.as_uri())
    job = StageJob(run="r", stage="sft", kind="sft", key="a" * 64, seed=0, store=store, workdir=tmp_path)
    runs = KubernetesLauncher(ClusterConfig(), api, SimpleNamespace(), open_store(store), tmp_path / "spans")  # type: ignore[arg-type]
    handle = ReleaseHandle(
        ReleaseRequest("sft", "r-sft", "lab", {}, [], job), LiveFiles(open_store(store), "r", "sft", "k")
    )
    seen = runs._observation(handle, state, pods)
    assert (seen.running, seen.exit_code) == (running, code)
