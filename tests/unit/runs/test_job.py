"""Job files: what run files refuse is refused in a job file, too."""

import json
from pathlib import Path
from typing import Any

import pytest

from editr1.config.loader import ConfigError
from editr1.launch.local.processes import end_with_parent
from editr1.runs.job import CONFIG_VARIABLE, PARENT_VARIABLE, POD_VARIABLE, make_workdir, read_job

DIGEST = "sha256:" + "a" * 64


def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    job = {"run": "r", "stage": "curate", "kind": "curate", "seed": 0, "workdir": str(tmp_path / "w")}
    job |= {"store": {"url": (tmp_path / "store").as_uri()}} | changes
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "job.json"))
    return read_job()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (
            {"inputs": {"dat": "builtin:shapes-verifier"}},
            r"inputs\.dat: unknown input of a curate stage; did you mean 'data'",
        ),
        ({"inputs": {"data": "stage:curate/rows"}}, r"inputs\.data: 'stage:curate/rows' refers to a stage"),
        ({"inputs": {"data": "rows"}}, r"inputs\.data: reference 'rows' is not valid"),
        ({"run": "../../evil"}, "run"),
        ({"run": ""}, "run"),
        ({"run": "a/b"}, "run"),
        ({"stage": ""}, "stage"),
        ({"key": "abc"}, "key"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_job_is_refused_with_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        read(tmp_path, monkeypatch, **changes)


def test_valid_job_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = read(tmp_path, monkeypatch, inputs={"data": DIGEST}, key="b" * 64)
    assert job.inputs == {"data": DIGEST}
    assert make_workdir(job).is_dir()


def test_workdir_that_cannot_be_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in ("/dev/null/x", str(tmp_path / "file")):
        with pytest.raises(ConfigError, match=f"workdir '{path}'.*set workdir to a folder"):
            make_workdir(read(tmp_path, monkeypatch, workdir=path))


def test_parent_that_is_no_process_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, "abc")
    with pytest.raises(ConfigError, match=r"EDITR1_PARENT_PID 'abc': not a process id; unset"):
        end_with_parent()


def test_pods_that_share_a_volume_have_only_downloads_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        "run": "r",
        "stage": "s",
        "kind": "curate",
        "seed": 0,
        "store": {"url": "file:///s"},
        "workdir": str(tmp_path),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "job.json"))
    assert (read_job().workdir, read_job().downloads) == (tmp_path, None)
    found = []
    for pod in ("r-s-worker-0", "r-s-worker-1"):
        monkeypatch.setenv(POD_VARIABLE, pod)
        found.append(read_job())
    assert [item.workdir for item in found] == [tmp_path / "pods/r/s/r-s-worker-0", tmp_path / "pods/r/s/r-s-worker-1"]
    assert {item.downloads for item in found} == {tmp_path / "downloads"}
    (tmp_path / "job.json").write_text(found[0].model_dump_json())
    assert read_job() == found[0], "a process of the first pod reads its job, whatever its environment is"
