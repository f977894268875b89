"""``editr1 bundle`` writes what it can read, whatever else is in the cluster."""

import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from editr1.launch.kubernetes import bundle
from editr1.launch.kubernetes.connect import Connection


def test_unexpected_objects_do_not_end_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("status")

    pod = SimpleNamespace(name="pod-0", main=None)
    good = SimpleNamespace(job=SimpleNamespace(name="sft"), release=SimpleNamespace(pods=(pod,)), files=None)
    api = SimpleNamespace(job_file=lambda _: "{not json", log=broken)
    jobs = [SimpleNamespace(name="sft"), SimpleNamespace(name="gcpo")]
    monkeypatch.setattr(bundle, "EditRuns", lambda _: SimpleNamespace(get=lambda _: None))
    monkeypatch.setattr(bundle, "jobs_of", lambda *_: jobs)
    monkeypatch.setattr(bundle, "overview", lambda _, job: good if job.name == "sft" else broken())
    monkeypatch.setattr(bundle, "explain", lambda _: "sft is running")
    monkeypatch.setattr(bundle, "examine", broken)
    names = bundle.write_bundle(cast(Connection, SimpleNamespace(api=api)), "r", tmp_path / "r.tar.gz")
    with tarfile.open(tmp_path / "r.tar.gz") as archive:
        texts = {name: cast(Any, archive.extractfile(f"r/{name}")).read().decode() for name in names}
    assert texts["explain.txt"] == "sft is running\ngcpo: not available: KeyError: 'status'"
    assert texts["doctor.txt"] == "not available: KeyError: 'status'"
    assert texts["sft/job.json"].startswith("not available: JSONDecodeError")
    assert texts["sft/logs/pod-0.txt"] == "not available: KeyError: 'status'"
    assert '"python"' in texts["versions.json"]
