"""``editr1 submit`` of a stage whose release exists, in a namespace in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes import submit as submit_module
from editr1.launch.kubernetes.state import Phase
from editr1.launch.kubernetes.submit import Submission, submit
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.partial import accept
from editr1.runs.record import (
    Missing,
    StageResult,
    load_complete_result,
    load_record,
    save_result,
)

KEY = "0" * 64


class Cluster:
    """Connection to a cluster whose releases are the set ``installed``, and whose jobs have the phase ``phase``."""

    def __init__(self) -> None:
        self.config, self.installed, self.installations = ClusterConfig(), set[str](), 0
        self.phase = Phase.SUCCEEDED
        self.api = SimpleNamespace(
            target=None, release=lambda name: self.phase, pods=lambda name: (), dry_run=lambda objects: None
        )
        self.helm = SimpleNamespace(
            chart_of_release=lambda name, target: "curate-0.1.0" if name in self.installed else None,
            install=self._install,
            uninstall=lambda n, t: self.installed.discard(n),
        )

    def _install(self, chart: str, name: str, target: Any, values: Any) -> None:
        self.installed.add(name)
        self.installations += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore) -> Cluster:
    monkeypatch.setattr(submit_module, "cluster_store", lambda config, url, wait=False: store)
    monkeypatch.setattr(submit_module, "state_of", lambda phase: SimpleNamespace(phase=phase))
    monkeypatch.setattr(submit_module, "image_of", lambda objects: "image")
    return Cluster()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "store").as_uri()))


def send(cluster: Cluster, tmp_path: Path) -> Submission:
    job = StageJob(
        run="lab",
        stage="curate",
        kind=Kind.CURATE,
        seed=0,
        key=KEY,
        store=StoreConfig(url="s3://bucket/prefix"),
        workdir=tmp_path,
    )
    return submit(Submission(Kind.CURATE, "lab", {}, [], job), cluster, "editr1 submit")  # type: ignore[arg-type]


def commit(store: ArtifactStore, missing: Missing) -> None:
    save_result(store, "lab", "curate", StageResult(key=KEY, missing=missing))


def test_release_with_a_partial_result_is_installed_again_once_its_job_has_ended(
    cluster: Cluster, store: ArtifactStore, tmp_path: Path
) -> None:
    assert not send(cluster, tmp_path).attached
    commit(store, Missing(causes={"think: UnreadableAnswer": 1}, total=2))
    cluster.phase = Phase.RUNNING
    assert send(cluster, tmp_path).attached and cluster.installations == 1
    cluster.phase = Phase.SUCCEEDED
    assert not send(cluster, tmp_path).attached and cluster.installations == 2
    assert load_complete_result(store, "lab", "curate", KEY) is None, "the pod would find its work done"


def test_release_whose_job_is_gone_is_installed_again(cluster: Cluster, tmp_path: Path) -> None:
    send(cluster, tmp_path)
    cluster.phase = Phase.MISSING
    assert not send(cluster, tmp_path).attached and cluster.installations == 2


def test_release_whose_result_is_complete_or_accepted_is_not_installed_again(
    cluster: Cluster, store: ArtifactStore, tmp_path: Path
) -> None:
    send(cluster, tmp_path)
    commit(store, Missing(causes={"think: UnreadableAnswer": 1}, total=2))
    record = load_record(store, "lab")
    assert record is not None
    accept(store, record, "curate")
    assert send(cluster, tmp_path).attached
    commit(store, Missing())
    assert send(cluster, tmp_path).attached and cluster.installations == 1
