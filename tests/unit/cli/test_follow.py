"""Exit codes of commands that follow releases."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import open_store
from editr1.cli.follow import exit_code_of_releases, follow_releases
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.overview import StageOverview
from editr1.launch.kubernetes.state import Phase, StageState
from editr1.launch.kubernetes.views import JobView, PodView, ReleaseView
from editr1.runs import await_result
from editr1.runs.live import LiveFiles
from editr1.runs.record import StageResult, result_key

NOW = 1000.0


def stage(phase: Phase, *, code: int | None = None, service: bool = False, pod: str = "Succeeded") -> StageOverview:
    job = JobView(name="r-sft", run="r", stage="sft", kind="serve" if service else "sft", created=0.0, service=service)
    pods = (PodView(name="r-sft-0", uid="u", phase=pod, created=0.0),)
    release = ReleaseView(name="r-sft", namespace="lab", job=job, pods=pods, events=())
    return StageOverview(job, release, StageState(phase, exit_code=code))


@pytest.mark.parametrize(
    ("stages", "code"),
    [
        ([], None),
        ([stage(Phase.RUNNING)], None),
        ([stage(Phase.SUCCEEDED)], 0),
        ([stage(Phase.SUCCEEDED, pod="Running")], None),
        ([stage(Phase.READY, service=True)], 0),
        ([stage(Phase.FAILED, code=3)], 3),
        ([stage(Phase.FAILED)], 1),
        ([stage(Phase.FAILED, code=3), stage(Phase.RUNNING)], None),
        ([stage(Phase.SUCCEEDED), stage(Phase.FAILED, code=5), stage(Phase.FAILED, code=4)], 5),
    ],
)
def test_exit_code_is_set_once_every_release_has_ended(stages: list[StageOverview], code: int | None) -> None:
    assert exit_code_of_releases(stages, NOW) == code


def test_job_that_succeeded_without_a_result_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(await_result, "RESULT_SECONDS", 0.0)
    monkeypatch.setattr(await_result, "POLL_SECONDS", 0.0)
    store, key = open_store(StoreConfig(url=tmp_path.as_uri())), "a" * 64
    ended = replace(stage(Phase.SUCCEEDED), files=LiveFiles(store, "r", "sft", key))
    monkeypatch.setattr("editr1.launch.kubernetes.overview.overview", lambda *_: ended)
    connection: Any = SimpleNamespace(api=SimpleNamespace(jobs=lambda: [ended.job]))
    assert follow_releases(connection, ["r-sft"], lambda: False) == 1
    assert "exited with code 0 but committed no result" in " ".join(capsys.readouterr().err.split())
    result = StageResult(key=key, outputs={}, metrics={})
    store.put_record(result_key("r", "sft", key), result.model_dump_json().encode())
    assert follow_releases(connection, ["r-sft"], lambda: False) == 0
