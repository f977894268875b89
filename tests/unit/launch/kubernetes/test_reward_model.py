"""The identity of a reward model from the annotations of its Deployment, and submissions that use it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.serve import ServeConfig
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.reward_model import annotated_identity, with_reward
from editr1.launch.kubernetes.submit import Submission, submit
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.name_in_use import NameInUse
from editr1.runs.record import RunRecord, StageRecord, load_record, save_record
from editr1.runs.resolve import resolve_job
from editr1.serving.identity import reward_identity

DIGEST = "sha256:" + "a" * 64
VALUES = {"store": {"url": "s3://bucket/x"}, "inputs": {"model": DIGEST}, "image": {"tag": "1"}}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "store").as_uri()))


def rendered(**values: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the annotations of the reward Deployment, and the job file of its pods."""
    objects = Helm().render("reward", "rrm", "lab", {**VALUES, **values})
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    (job,) = [
        item["data"]["job.json"] for item in objects if item["kind"] == "ConfigMap" and "job.json" in item["data"]
    ]
    return deployment["metadata"]["annotations"], json.loads(job)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"config": {"max_new_tokens": 99, "temperature": 0.7, "max_batch_size": 8}},
        {"vllm": {"enabled": True}, "config": {"openai": {"concurrency": 8}}},
        {"autoscaling": {"mode": "keda", "minReplicas": 0}},
    ],
)
def test_annotations_state_the_identity_that_the_pods_report(store: ArtifactStore, values: dict[str, Any]) -> None:
    annotations, job = rendered(**values)
    reported = reward_identity(job["inputs"]["model"], ServeConfig.model_validate(job["config"]))
    assert annotated_identity(annotations, store, "rrm") == reported


def test_number_of_replicas_does_not_change_the_identity(store: ArtifactStore) -> None:
    one, many = (annotated_identity(rendered(replicas=n)[0], store, "rrm") for n in (0, 5))
    assert one == many


def grpo_job(store: ArtifactStore, tmp_path: Path, **fields: Any) -> StageJob:
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m/config.json").write_text("{}")
    model = store.commit(tmp_path / "m", kind="import", stage="import").digest
    config = StoreConfig(url=store.url)
    job = {"run": "train", "stage": "grpo", "kind": Kind.GRPO, "seed": 0, "store": config, "workdir": tmp_path}
    job |= {"inputs": {"cases": model, "editor": model}, "reward_urls": ["http://rrm.lab.svc:8000"]}
    return StageJob.model_validate(job | fields)


def test_submission_reads_the_model_from_the_deployment(store: ArtifactStore, tmp_path: Path) -> None:
    annotations, _ = rendered(config={"max_new_tokens": 99}, replicas=0)
    deployments = {"rrm": {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}}}
    api: Any = SimpleNamespace(namespace="lab", get=lambda _kind, name: deployments.get(name))
    job = resolve_job(with_reward(grpo_job(store, tmp_path), api, store), store)
    assert job.reward_digest == DIGEST and job.reward is not None and job.reward.settings["max_new_tokens"] == 99
    annotations, _ = rendered(config={"max_new_tokens": 100})
    deployments["rrm"]["metadata"] = {"annotations": annotations}
    assert resolve_job(with_reward(grpo_job(store, tmp_path), api, store), store).key != job.key
    stated = grpo_job(store, tmp_path, reward_digest=DIGEST)
    assert with_reward(stated, api, store) is stated
    elsewhere = grpo_job(store, tmp_path, reward_urls=["http://rrm.other.svc:8000"])
    assert with_reward(elsewhere, api, store) is elsewhere
    deployments.clear()
    with pytest.raises(ConfigError, match=r"'rrm' in namespace lab: there is no Deployment.*reward\.digest"):
        with_reward(grpo_job(store, tmp_path), api, store)


def test_deployment_of_an_earlier_version_requires_the_digest(store: ArtifactStore) -> None:
    with pytest.raises(ConfigError, match=r"no annotation editr1\.dev/reward-model.*reward\.digest"):
        annotated_identity({}, store, "rrm")


def test_submission_with_other_settings_is_refused_unless_it_replaces_the_record(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "editr1.launch.kubernetes.submit.cluster_store", lambda *_, **__: store
    )  # pods need an S3 store
    installed: list[str] = []
    helm = SimpleNamespace(
        chart_of_release=lambda _name, _target: None, install=lambda _chart, name, *_: installed.append(name)
    )
    api = SimpleNamespace(namespace="lab", target=None, dry_run=lambda _objects: None)
    connection: Any = SimpleNamespace(config=ClusterConfig(), helm=helm, api=api)
    job = grpo_job(store, tmp_path, key="b" * 64, config={"iterations": 5})
    known = StageRecord(name="grpo", kind="grpo", key="c" * 64, inputs=job.inputs, config={"iterations": 4})
    save_record(store, RunRecord(name="train", seed=0, created=0.0, stages={"grpo": known}))
    submission = Submission(Kind.GRPO, "train", {}, [], job)
    with pytest.raises(NameInUse, match=r"grpo\.config\.iterations: 4 -> 5\n.*--replace"):
        submit(submission, connection, "editr1 submit")
    assert not installed and load_record(store, "train").stages["grpo"].key == "c" * 64  # type: ignore[union-attr]
    submit(submission, connection, "editr1 submit", replace=True)
    assert installed == ["train"] and load_record(store, "train").stages["grpo"].key == "b" * 64  # type: ignore[union-attr]
