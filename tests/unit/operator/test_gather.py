"""Observation of a run while a watch lags behind: no job is started twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.launch.kubernetes.run_status import RunState, RunStatus
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec
from editr1_operator.cache import Cache
from editr1_operator.gather import Gatherer
from tests.unit.operator.conftest import NOW, curate, launched_status

RUN = RunSpec(api_version=API_VERSION, kind="EditRun", metadata=Metadata(name="lab"), spec=RunBody(stages=[curate()]))
JOB: dict[str, Any] = {
    "apiVersion": "kubeflow.org/v1",
    "metadata": {
        "name": "lab-data",
        "namespace": "lab",
        "uid": "u1",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"editr1.dev/stage": "data", "editr1.dev/kind": "curate", "editr1.dev/run": "lab"},
        "ownerReferences": [{"apiVersion": API_VERSION, "kind": "EditRun", "name": "lab", "uid": "u"}],
    },
    "spec": {"runPolicy": {}, "pytorchReplicaSpecs": {"Master": {"replicas": 1}}},
}


@pytest.mark.parametrize(("body", "uid"), [(JOB, "u1"), (None, "")])
def test_job_missing_in_the_cache_is_read_from_the_api_server(
    body: dict[str, Any] | None, uid: str, tmp_path: Path
) -> None:
    requested: list[str] = []
    client: Any = SimpleNamespace(get=lambda _kind, _namespace, name: requested.append(name) or body)
    events: Any = SimpleNamespace(of=lambda *_: ())
    gatherer = Gatherer(client, Cache(), events, {}, "lab", "u", NOW, 5.0)
    status = RunStatus(stages=[launched_status(state=RunState.STARTING)])
    observed = gatherer.observe(RUN, SimpleNamespace(store=None), status, 1, {})  # type: ignore[arg-type]
    assert observed.stages["data"].uid == uid
    assert requested == ["lab-data"]


def test_late_watch_event_does_not_replace_a_newer_version() -> None:
    def body(version: int, uid: str = "u") -> dict[str, Any]:
        return {"metadata": {"namespace": "lab", "name": "lab", "uid": uid, "resourceVersion": str(version)}}

    cache = Cache()
    key = cache.put_run(body(7), deleted=False)
    cache.put_run(body(6), deleted=False)
    found = cache.run(key)
    assert found is not None and found["metadata"]["resourceVersion"] == "7"
    cache.put_run(body(3, uid="another run"), deleted=False)
    cache.put_run(body(9), deleted=True)
    found = cache.run(key)
    assert found is not None and found["metadata"]["uid"] == "another run"
