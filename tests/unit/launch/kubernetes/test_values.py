"""Chart values from a job and cluster settings."""

import re
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest

from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.launch.job_builder import chart_values
from editr1.launch.kubernetes import helm
from editr1.launch.kubernetes.connect import load_cluster, store_config
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.submit import read_values, render
from editr1.launch.kubernetes.values import (
    check_release,
    check_release_names,
    checked,
    kind_of,
    release_name,
    shared_values,
)
from editr1.runs.job import RuntimeSettings, StageJob
from editr1.runs.kinds import Kind
from editr1.runs.references import parse_reference
from editr1.runs.spec import StageSpec

DIGEST = "sha256:" + "a" * 64


def job(kind: Kind = Kind.SFT, **changes: object) -> StageJob:
    values: dict[str, object] = {
        "run": "quick",
        "stage": str(kind),
        "kind": kind,
        "key": "b" * 64,
        "seed": 3,
        "store": StoreConfig(url="s3://bucket/p", endpoint="http://127.0.0.1:1"),
        "inputs": {"rows": DIGEST, "model": DIGEST},
        "config": {"max_steps": 5},
        "workdir": Path("/work"),
    }
    return StageJob.model_validate(values | changes)


def test_values_for_a_stage_name_override_values_for_its_kind_and_all_stages() -> None:
    cluster = ClusterConfig(
        values={"gpus": 8, "image": {"tag": "1"}},
        stages={"sft": {"gpus": 4, "nodes": 2}, "warmup": {"gpus": 1}},
    )
    assert shared_values(cluster, Kind.SFT, "sft")["gpus"] == 4
    named = shared_values(cluster, Kind.SFT, "warmup")
    assert (named["gpus"], named["nodes"]) == (1, 2)
    assert named["image"] == {"repository": "editr1/sft", "tag": "1"}
    assert shared_values(cluster, Kind.SERVE, "serve")["image"]["repository"] == "editr1/reward"


def test_rendered_job_file_equals_the_job_except_for_the_endpoint() -> None:
    cluster = ClusterConfig(values={"store": {"endpoint": "http://s3.lab.svc:8333"}, "gpus": 0})
    runtime = RuntimeSettings(release="quick-sft", retries=4)
    stage = StageSpec(name="sft", kind="sft", processes=2, retries=4)
    values = chart_values(job(), cluster, stage=stage)
    objects = Helm().render("sft", "quick-sft", "lab", values)
    (text,) = [item["data"]["job.json"] for item in objects if item["kind"] == "ConfigMap"]
    rendered = StageJob.model_validate_json(text)
    assert rendered.store.endpoint == "http://s3.lab.svc:8333"
    assert rendered.model_dump(exclude={"store"}) == job(runtime=runtime).model_dump(exclude={"store"})
    (rendered_job,) = [item for item in objects if item["kind"] == "PyTorchJob"]
    assert rendered_job["spec"]["nprocPerNode"] == "2"


def test_unknown_value_is_rejected_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"toleration: unknown key; did you mean 'tolerations'"):
        chart_values(job(), ClusterConfig(values={"toleration": []}))


def test_names_too_long_for_pods_are_rejected() -> None:
    assert release_name("quick", "sft") == "quick-sft"
    with pytest.raises(ConfigError, match="at most 45"):
        release_name("q" * 40, "evaluate")


def test_every_stage_whose_release_name_is_too_long_is_listed() -> None:
    check_release_names("q" * 41, ["sft"], "run.yaml")
    with pytest.raises(ConfigError) as refused:
        check_release_names("q" * 40, ["sft", "serve", "evaluate"], "run.yaml")
    (first, second) = str(refused.value).splitlines()
    assert first.startswith("run.yaml: run 'qqq") and "stage 'serve'" in first and "stage 'evaluate'" in second
    assert "at most 45 are allowed" in first and "shorten the name of the run or of the stage" in first


@pytest.mark.parametrize("name", ["Bad", "a_b", "a b", "-a", "a-", "", "a" * 46, "2-grpo", "a.b", "a\n", "é"])
def test_release_name_invalid_in_kubernetes_is_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        check_release(name)
    check_release("my-grpo-2")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"row": DIGEST}, "inputs.row: unknown input; did you mean 'rows'"),
        ({"model": "builtin:shapes-verifer"}, "inputs.model"),
    ],
)
def test_unknown_input_and_unknown_builtin_are_rejected(inputs: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        checked(Kind.SFT, {"inputs": inputs}, "sft.yaml")


def test_every_packaged_checkpoint_is_a_valid_builtin() -> None:
    shipped = files("editr1.shapes") / "assets"
    names = [
        folder.name for folder in shipped.iterdir() if (folder / "config.json").is_file() or folder.name == "editor"
    ]
    assert sorted(names) == ["editor", "verifier", "verifier-small"]
    for name in names:
        checked(Kind.SFT, {"inputs": {"model": f"builtin:shapes-{name}"}}, "sft.yaml")
        assert parse_reference(f"builtin:shapes-{name}")


def test_reward_chart_belongs_to_kind_serve() -> None:
    assert kind_of("reward") is kind_of("serve") is Kind.SERVE
    with pytest.raises(ConfigError, match="choose one of: curate, sft, gcpo, reward, grpo, evaluate"):
        kind_of("train")


def test_cluster_options_override_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("namespace: lab\nvalues: {gpus: 1}\n")
    env = {"EDITR1_CLUSTER_FILE": str(file), "EDITR1_CLUSTER__VALUES": "{gpus: 2}"}
    assert load_cluster(None, ["namespace=other"], env).model_dump(include={"namespace", "values"}) == {
        "namespace": "other",
        "values": {"gpus": 2},
    }


def test_store_that_pods_cannot_reach_is_rejected() -> None:
    with pytest.raises(ConfigError, match="pods cannot reach it"):
        store_config(ClusterConfig(), "file:///tmp/store")
    with pytest.raises(ConfigError, match="no artifact store is configured"):
        store_config(ClusterConfig())
    config = ClusterConfig(values={"store": {"url": "s3://b", "endpoint": "http://in"}}, store_endpoint="http://out")
    assert store_config(config).endpoint == "http://out"


def test_store_endpoint_is_rejected_if_none_is_set_for_the_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITR1_S3_ENDPOINT", "http://minio.example:9000")
    file = tmp_path / "values.yaml"
    file.write_text(f"inputs: {{rows: 'sha256:{0:064d}', model: 'builtin:shapes-verifier'}}\n")
    cluster = ClusterConfig(values={"store": {"url": "s3://b/p"}})
    values = read_values(Kind.SFT, "mine", cluster, file, [], {})
    with pytest.raises(
        ConfigError, match=r"http://minio.example:9000.*no endpoint is set for the pods.*values.store.endpoint"
    ):
        render(Kind.SFT, "mine", values, cluster, "editr1", Helm())


def test_stage_name_in_a_values_file_selects_cluster_values(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("stage: second\n")
    cluster = ClusterConfig(stages={"second": {"gpus": 2}})
    assert read_values(Kind.SFT, "mine", cluster, file, [], {})["gpus"] == 2


def test_concurrent_first_renders_share_one_copy_of_the_charts() -> None:
    helm._copies.cache_clear()
    names = ["curate", "sft", "gcpo", "reward", "grpo", "evaluate"] * 8
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(helm.chart_folder, names))
    assert len({folder.parent for folder in folders}) == 1
    assert all((folder / "Chart.yaml").is_file() for folder in folders)
