"""All jobs are built by one function, and their keys do not depend on runtime settings."""

import ast
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig, store_at
from editr1.launch.job_builder import JobContext, RewardEndpoints, build_job, chart_values
from editr1.launch.local.launcher import LocalLauncher
from editr1.runs.job import RuntimeSettings
from editr1.runs.resolve import ResolvedStage, resolve_job
from editr1.runs.spec import StageSpec

ROOT = Path(__file__).parents[3]
STORE = StoreConfig(url="s3://bucket/p", endpoint="http://laptop:1", region="eu-1")
GRPO = StageSpec(name="grpo", kind="grpo", inputs={"cases": "sha256:" + "a" * 64, "editor": "sha256:" + "b" * 64})


def test_only_the_job_builder_creates_jobs() -> None:
    found = [
        path.relative_to(ROOT)
        for folder in ("editr1", "operators")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StageJob"
    ]
    assert found == [Path("editr1/launch/job_builder.py")]


def test_key_does_not_depend_on_runtime_settings(tmp_path: Path) -> None:
    store = StoreConfig(url=tmp_path.as_uri())
    runtimes = (
        RuntimeSettings(),
        RuntimeSettings(release="r", publish_seconds=1, retries=7, span_file=tmp_path / "s", log_format="json"),
    )
    jobs = [
        build_job(StageSpec(name="curate", kind="curate"), JobContext("r", 0, store, runtime=runtime))
        for runtime in runtimes
    ]
    first, second = (resolve_job(job, open_store(store)) for job in jobs)
    assert first.key == second.key != ""
    assert (first.runtime, second.runtime) == runtimes


def test_running_service_overrides_addresses_in_the_run_file() -> None:
    named = GRPO.model_copy(update={"reward": "http://a:1,http://b:2"})
    context = JobContext("r", 0, STORE)
    assert build_job(named, context).reward_urls == ["http://a:1", "http://b:2"]
    job = build_job(named, context, reward=RewardEndpoints(("http://c:3",), "sha256:" + "c" * 64))
    assert (job.reward_urls, job.reward_digest) == (["http://c:3"], "sha256:" + "c" * 64)


def test_values_file_keeps_its_reward_service_and_gets_key_and_seed_of_the_job() -> None:
    resolved = ResolvedStage({}, dict(GRPO.inputs), "d" * 64)
    job = build_job(GRPO, JobContext("r", 3, STORE, "rev"), resolved, RewardEndpoints(("http://rrm.lab.svc:8000",)))
    cluster = ClusterConfig(values={"store": {"endpoint": "http://s3.lab.svc:8333"}})
    base = {"reward": {"release": "rrm"}, "nodes": 2, "store": {"endpoint": "http://s3.lab.svc:8333"}}
    values = chart_values(job, cluster, base=base)
    assert values["reward"] == {"release": "rrm"} and values["nodes"] == 2 and "processes" not in values
    assert (values["key"], values["seed"], values["gitRevision"]) == ("d" * 64, 3, "rev")
    assert values["store"] == {"url": "s3://bucket/p", "region": "eu-1", "endpoint": "http://s3.lab.svc:8333"}
    values = chart_values(job, cluster, stage=GRPO)
    assert values["reward"]["urls"] == ["http://rrm.lab.svc:8000"] and values["processes"] == 1


def test_environment_sets_s3_endpoint_and_region(tmp_path: Path) -> None:
    env = {"EDITR1_S3_ENDPOINT": "http://s3:1", "EDITR1_S3_REGION": "eu-2"}
    found = store_at("s3://b/x", env=env)
    assert (found.endpoint, found.region) == ("http://s3:1", "eu-2")
    assert store_at("s3://b/x", endpoint="http://other:2", env=env).endpoint == "http://other:2"
    assert store_at(tmp_path.as_uri(), env=env).endpoint is None
    with pytest.raises(ConfigError, match="EDITR1_S3_REGION"):
        store_at("s3://b/x", env={"EDITR1_S3_REGION": "not a region"})


def test_stage_process_does_not_import_from_the_working_directory(tmp_path: Path) -> None:
    stage = StageSpec(name="curate", kind="curate")
    job = build_job(stage, JobContext("r", 0, StoreConfig(url=tmp_path.as_uri()), workdir=tmp_path))
    assert LocalLauncher().render(job, stage).environment["PYTHONSAFEPATH"] == "1"
