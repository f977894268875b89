"""The job file that a chart renders for its pods has the same fields as the job that was submitted."""

from pathlib import Path
from typing import Any

import pytest

from editr1.config.cluster import ClusterConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.serve import ServeConfig
from editr1.config.store import StoreConfig
from editr1.launch.job_builder import JobContext, RewardEndpoints, build_job, chart_values
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.values import chart_of, release_name
from editr1.runs.job import CONFIG_VARIABLE, RuntimeSettings, StageJob, read_job
from editr1.runs.kinds import Kind
from editr1.runs.resolve import ResolvedStage, check_key, full_config, stage_key
from editr1.runs.spec import StageSpec
from editr1.serving.identity import RewardIdentity

DIGEST = "sha256:" + "a" * 64
CLUSTER = ClusterConfig(
    values={
        "store": {"endpoint": "s3.lab.svc:8333"},
        "telemetry": {"publishIntervalSeconds": 9, "jsonLogs": True},
    }
)
SET_ON_THE_CLUSTER: dict[str, Any] = {
    # Pods mount their scratch volume at this path. The given job has a folder of the submitting machine.
    "workdir": "/work",
    # Pods use the endpoint in the cluster settings, which may differ from the endpoint of the submitting machine.
    "store.endpoint": "s3.lab.svc:8333",
    # The given path is on the submitting machine. Pods use the bundle in store.caConfigMap, which is not set here.
    "store.ca_bundle": None,
    # The chart sets these two variables from the Secret store.secretName, under their default names.
    "store.access_key_env": "EDITR1_S3_ACCESS_KEY",
    "store.secret_key_env": "EDITR1_S3_SECRET_KEY",
    # The chart values telemetry.publishIntervalSeconds and telemetry.jsonLogs come from the cluster settings.
    "runtime.publish_seconds": 9,
    "runtime.log_format": "json",
    # Pods write spans to their working directory and publish them from there.
    "runtime.span_file": None,
    # Pods set it when they read the job.
    "downloads": None,
}
"""Fields that differ between the pod and the given job, with the value in the pod."""
SERVICE_HAS_NO = {
    # Reward services do not use a reward service.
    "reward_urls": [],
    "reward_digest": None,
    "reward": None,
    # Kubernetes restarts the pods of a Deployment without a limit.
    "runtime.retries": None,
}


def job_of(stage: StageSpec, config: dict[str, Any], bundle: Path) -> StageJob:
    """Return a job in which every field that its kind supports has a value other than the default."""
    bundle.touch()
    store = StoreConfig(
        url="s3://bucket/prefix",
        endpoint="laptop:1",
        region="eu-1",
        secure=False,
        ca_bundle=bundle,
        access_key_env="MY_ACCESS_KEY",
        secret_key_env="MY_SECRET_KEY",
        part_bytes=5 << 30,
        transfers=7,
        outage_seconds=600,
    )
    runtime = RuntimeSettings(
        release=release_name("demo", stage.name),
        publish_seconds=2,
        heartbeat_timeout_seconds=stage.heartbeat_timeout_seconds,
        retries=None if stage.kind == "serve" else stage.retries,
        span_file=bundle.with_name("spans"),
        log_format="text",
    )
    served = (
        RewardIdentity(model="sha256:" + "c" * 64, settings={"temperature": 1.0}) if stage.kind != "serve" else None
    )
    resolved = ResolvedStage(config=config, inputs=dict(stage.inputs), key="d" * 64, reward=served)
    reward = RewardEndpoints(("http://a:1", "http://b:2"), served.model) if served else None
    context = JobContext("demo", 7, store, "rev", workdir=bundle.parent, runtime=runtime)
    return build_job(stage, context, resolved, reward)


def leaves(job: StageJob) -> dict[str, Any]:
    """Return the fields of a job as JSON values; the fields of a section are named ``section.field``."""
    fields = job.model_dump(mode="json")
    sections = {name: fields.pop(name) for name in ("store", "runtime")}
    return fields | {f"{head}.{name}": value for head, section in sections.items() for name, value in section.items()}


GRPO = (
    StageSpec(
        name="editor",
        kind="grpo",
        inputs={"cases": DIGEST, "editor": DIGEST},
        retries=6,
        heartbeat_timeout_seconds=77.5,
    ),
    GrpoConfig(iterations=3, learning_rate=3e-7, beta=0.04).model_dump(mode="json"),
    SET_ON_THE_CLUSTER,
)
SERVE = (
    StageSpec(name="rrm", kind="serve", inputs={"model": DIGEST}, heartbeat_timeout_seconds=77.5),
    ServeConfig(host="*", port=8000, max_batch_size=3).model_dump(mode="json"),
    SET_ON_THE_CLUSTER | SERVICE_HAS_NO,
)


@pytest.mark.parametrize(("stage", "config", "exceptions"), [GRPO, SERVE], ids=["grpo", "reward"])
def test_pod_reads_every_field_of_the_job(
    stage: StageSpec,
    config: dict[str, Any],
    exceptions: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = job_of(stage, config, tmp_path / "ca.pem")
    values = chart_values(job, CLUSTER, stage=stage)
    objects = Helm().render(chart_of(job.kind), release_name(job.run, job.stage), "lab", values)
    (text,) = [o["data"]["job.json"] for o in objects if o["kind"] == "ConfigMap" and "job.json" in o["data"]]
    file = tmp_path / "job.json"
    file.write_text(text)
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    given, found = leaves(job), leaves(read_job())
    expected = given | exceptions
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == given.keys()
    bare = StageJob(
        run="other", stage="other", kind=Kind.SFT, seed=0, store=StoreConfig(url="s3://other"), workdir=Path("/")
    )
    at_default = {name for name, value in leaves(bare).items() if given[name] == value} - exceptions.keys()
    assert not at_default, "give these fields other values in job_of, so that the comparison covers them"


EXTRA_BODY = {"a": 1.0, "b": None, "c": 1e-7, "d": [2.0, {"e": 0.5}], "f": True, "g": "1.0"}


@pytest.mark.parametrize(
    ("kind", "inputs", "config"),
    [
        (Kind.CURATE, {}, {"curation": {"endpoints": {"default": {"extra_body": EXTRA_BODY}}}}),
        (Kind.SFT, {"rows": DIGEST, "model": DIGEST}, {"learning_rate": 1e-5}),
        (Kind.GCPO, {"pairs": DIGEST, "model": DIGEST}, {}),
        (Kind.GRPO, {"cases": DIGEST, "editor": DIGEST}, {"beta": 0.0}),
        (Kind.EVALUATE, {"pairs": DIGEST, "sft": DIGEST}, {}),
    ],
)
def test_key_belongs_to_the_job_that_a_chart_renders(
    kind: Kind, inputs: dict[str, str], config: dict[str, Any]
) -> None:
    stage = StageSpec(name="s", kind=kind, inputs=inputs)
    reward = RewardIdentity(model=DIGEST, settings={"temperature": 1.0}) if kind is Kind.GRPO else None
    config = full_config(kind, config, 7)
    resolved = ResolvedStage(config, inputs, stage_key(kind, config, inputs, 7, reward), reward)
    endpoints = RewardEndpoints(("http://a:1",), DIGEST) if reward else None
    job = build_job(stage, JobContext("demo", 7, StoreConfig(url="s3://b/p")), resolved, endpoints)
    objects = Helm().render(chart_of(kind), "demo-s", "lab", chart_values(job, CLUSTER, stage=stage))
    (text,) = [o["data"]["job.json"] for o in objects if o["kind"] == "ConfigMap" and "job.json" in o["data"]]
    check_key(StageJob.model_validate_json(text))
