"""Rendering of every chart: golden files, rejected values, and properties that hold for all pods."""

import importlib.util
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.loader import ConfigError
from editr1.config.names import MAX_NAME_LENGTH, name_fault
from editr1.launch.kubernetes.helm import Helm, HelmError
from editr1.launch.kubernetes.values import chart_of, checked, kind_of
from editr1.runs.kinds import KINDS, Kind
from editr1.telemetry import Metric

ROOT = Path(__file__).parents[4]
CHARTS = ROOT / "charts"
GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(CHARTS.glob("*/ci/*-values.yaml"))
DIGEST = "sha256:" + "a" * 64
STORE = {"url": "s3://bucket/prefix"}


def case_id(path: Path) -> str:
    return f"{path.parts[-3]}-{path.name.removesuffix('-values.yaml')}"


def render(chart: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    return Helm().render(chart, "demo", "prod", values)


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in objects:
        if item["kind"] == "Deployment":
            yield item["spec"]["template"]["spec"]
        for replica in item.get("spec", {}).get("pytorchReplicaSpecs", {}).values():
            yield replica["template"]["spec"]


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_rendered_objects_equal_the_golden_file(path: Path) -> None:
    objects = render(path.parts[-3], yaml.safe_load(path.read_text()))
    text = yaml.safe_dump_all(objects, sort_keys=False, width=120)
    golden = GOLDEN / f"{case_id(path)}.yaml"
    if os.environ.get("EDITR1_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "if intended, run: EDITR1_UPDATE_GOLDEN=1 pytest tests/unit/launch/kubernetes"


def test_every_golden_file_has_a_values_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {case_id(path) for path in CASES}


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_containers_meet_pod_security_restricted_without_secret_values(path: Path) -> None:
    objects = render(path.parts[-3], yaml.safe_load(path.read_text()))
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 1
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is (path.parts[-3] == "operator")
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            for variable in container["env"]:
                if re.search("SECRET|ACCESS_KEY|TOKEN", variable["name"]):
                    assert "value" not in variable
    assert not any(item["kind"] == "Secret" for item in objects)


def test_single_node_is_a_master_and_several_nodes_are_elastic_workers() -> None:
    inputs = {"rows": DIGEST, "model": DIGEST}
    (one,) = [o for o in render("sft", {"store": STORE, "inputs": inputs}) if o["kind"] == "PyTorchJob"]
    assert list(one["spec"]["pytorchReplicaSpecs"]) == ["Master"] and "elasticPolicy" not in one["spec"]
    assert one["spec"]["nprocPerNode"] == "1"
    values = {"store": STORE, "inputs": inputs, "nodes": 3, "gpus": 8, "retries": 5}
    (several,) = [o for o in render("sft", values) if o["kind"] == "PyTorchJob"]
    assert list(several["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    elastic = several["spec"]["elasticPolicy"]
    assert (elastic["minReplicas"], elastic["maxReplicas"], elastic["maxRestarts"]) == (3, 3, 5)
    assert elastic["rdzvBackend"] == "c10d" and several["spec"]["nprocPerNode"] == "8"
    for pod in pods([one, several]):
        (container,) = pod["containers"]
        assert container["name"] == "pytorch" and "readinessProbe" not in container


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_labels_and_annotations_reach_every_object(path: Path) -> None:
    """Policies of a cluster can require them, also on pods."""
    chart, values = path.parts[-3], yaml.safe_load(path.read_text()) or {}
    given = {"commonLabels": {"team": "vision"}, "commonAnnotations": {"cost": "7"}, "podAnnotations": {"mesh": "off"}}
    objects = render(chart, values | given)
    for item in objects:
        if item["kind"] == "CustomResourceDefinition":
            continue  # It belongs to the cluster, and several releases share it.
        where = f"{item['kind']} {item['metadata']['name']}"
        assert item["metadata"]["labels"]["team"] == "vision", where
        assert item["metadata"]["annotations"]["cost"] == "7", where
        replicas = item.get("spec", {}).get("pytorchReplicaSpecs", {}).values()
        for template in (
            [item["spec"]["template"]] if item["kind"] == "Deployment" else [one["template"] for one in replicas]
        ):
            assert template["metadata"]["labels"]["team"] == "vision", where
            assert template["metadata"]["annotations"]["mesh"] == "off", where


def test_labels_of_the_charts_cannot_be_replaced() -> None:
    for key in ("commonLabels", "podLabels"):
        with pytest.raises(ConfigError, match=rf"{key}: editr1\.dev/run: the charts set labels with this prefix"):
            checked(Kind.CURATE, {"store": STORE, key: {"editr1.dev/run": "x"}}, "values")


@pytest.mark.parametrize("chart", ["curate", "reward", "operator"])
def test_user_can_be_left_to_the_cluster(chart: str) -> None:
    values = {} if chart == "operator" else {"store": STORE, "inputs": {"model": DIGEST} if chart == "reward" else {}}
    (pod,) = pods(render(chart, values | {"runAsUser": None}))
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (pod,) = pods(render(chart, values | {"runAsUser": 1000680000}))
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"] == 1000680000


def test_gang_scheduler_can_be_named() -> None:
    policy = {"minAvailable": 2, "queue": "research"}
    values = {"store": STORE, "schedulerName": "volcano", "schedulingPolicy": policy, "nodes": 2}
    objects = render("curate", values)
    (job,) = [item for item in objects if item["kind"] == "PyTorchJob"]
    assert job["spec"]["runPolicy"]["schedulingPolicy"] == policy
    assert [pod["schedulerName"] for pod in pods(objects)] == ["volcano"]
    (plain,) = [item for item in render("curate", {"store": STORE}) if item["kind"] == "PyTorchJob"]
    assert not {"schedulingPolicy", "suspend"} & set(plain["spec"]["runPolicy"])


def test_operator_has_the_pod_values_of_the_stage_charts() -> None:
    values = {
        "store": {"secretName": "", "caConfigMap": "corp-ca"},
        "serviceAccountAnnotations": {"role": "bucket"},
        "affinity": {"nodeAffinity": {}},
        "envFrom": [{"secretRef": {"name": "proxy"}}],
        "volumes": [{"name": "more", "emptyDir": {}}],
        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    objects = render("operator", values)
    (account,) = [item for item in objects if item["kind"] == "ServiceAccount"]
    assert account["metadata"]["annotations"] == {"role": "bucket"}
    (pod,) = pods(objects)
    (container,) = pod["containers"]
    assert pod["affinity"] == values["affinity"] and container["envFrom"] == values["envFrom"]
    assert {"name": "store-ca", "configMap": {"name": "corp-ca"}} in pod["volumes"] and values["volumes"][0] in pod[
        "volumes"
    ]
    assert {"name": "EDITR1_S3_CA_BUNDLE", "value": "/etc/editr1-ca/ca.crt"} in container["env"]
    assert not [item for item in container["env"] if item["name"] == "EDITR1_S3_ACCESS_KEY"]
    other = render("operator", {"serviceAccountName": "bucket-role"})
    assert not [item for item in other if item["kind"] == "ServiceAccount"]
    subjects = [item["subjects"][0]["name"] for item in other if item["kind"] == "RoleBinding"]
    assert subjects == [pod["serviceAccountName"] for pod in pods(other)] == ["bucket-role"]


def test_deployment_sets_replicas_only_without_autoscaling() -> None:
    model = {"store": STORE, "inputs": {"model": DIGEST}}
    (fixed,) = [o for o in render("reward", {**model, "replicas": 3}) if o["kind"] == "Deployment"]
    assert fixed["spec"]["replicas"] == 3
    scaled = render("reward", {**model, "autoscaling": {"mode": "keda"}})
    (deployment,) = [o for o in scaled if o["kind"] == "Deployment"]
    assert "replicas" not in deployment["spec"]
    (scaler,) = [o for o in scaled if o["kind"] == "ScaledObject"]
    assert [trigger["type"] for trigger in scaler["spec"]["triggers"]] == ["metrics-api", "kubernetes-workload"]
    assert scaler["spec"]["triggers"][0]["metadata"]["valueLocation"] == Metric.IN_FLIGHT


def test_grace_period_covers_drain_and_pre_stop() -> None:
    values = {
        "store": STORE,
        "inputs": {"model": DIGEST},
        "config": {"drain_timeout_seconds": 90},
        "preStopSeconds": 20,
    }
    (deployment,) = [o for o in render("reward", values) if o["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 90 + 20
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize(
    ("chart", "values", "message"),
    [
        ("sft", {"store": {"url": ""}}, "store.url is not set"),
        ("sft", {"inputs": {"rows": DIGEST}}, "inputs.model is not set"),
        ("sft", {"inputs": {"rows": DIGEST, "model": "Qwen"}}, "/inputs/model"),
        ("sft", {"inputs": {"rows": DIGEST, "model": DIGEST, "rews": DIGEST}}, "'rews' not allowed"),
        ("sft", {"inputs": {"rows": DIGEST, "model": DIGEST}, "gpu": 1}, "'gpu' not allowed"),
        ("sft", {"inputs": {"rows": DIGEST, "model": DIGEST}, "config": {"stepz": 1}}, "'stepz' not allowed"),
        ("sft", {"inputs": {"rows": DIGEST, "model": DIGEST}, "nodes": 0}, "/nodes"),
        ("operator", {"namespaces": ["Team.A"]}, "/namespaces/0"),
        ("operator", {"namespaces": [""]}, "/namespaces/0"),
        ("sft", {"inputs": {"rows": DIGEST, "model": DIGEST}, "nodes": 2, "scratch": {"claim": "c"}}, "scratch.claim"),
        ("curate", {"queueName": "research", "suspend": True}, "queueName and suspend are both set"),
        ("grpo", {"inputs": {"cases": DIGEST, "editor": DIGEST}}, "reward is not set"),
        (
            "grpo",
            {"inputs": {"cases": DIGEST, "editor": DIGEST}, "reward": {"release": "a", "urls": ["http://b"]}},
            "are both set: set only one of them",
        ),
        (
            "reward",
            {"inputs": {"model": DIGEST}, "autoscaling": {"mode": "hpa", "minReplicas": 0}},
            "minReplicas 0 requires autoscaling.mode keda",
        ),
        (
            "reward",
            {"inputs": {"model": DIGEST}, "autoscaling": {"minReplicas": 9, "maxReplicas": 2}},
            "minReplicas 9 exceeds autoscaling.maxReplicas 2",
        ),
        ("reward", {"inputs": {"model": "hub:a/b@c"}, "vllm": {"enabled": True}}, "inputs.model is a hub: reference"),
        ("reward", {"inputs": {"model": DIGEST}, "autoscaling": {"mode": "auto"}}, "/autoscaling/mode"),
    ],
)
def test_invalid_values_are_rejected_with_a_reason(chart: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=re.escape(message)):
        render(chart, {"store": STORE, **values})


@pytest.mark.parametrize("kind", [Kind.SFT, Kind.EVALUATE])
def test_chart_and_package_accept_the_same_inputs_with_the_same_messages(kind: Kind) -> None:
    names = [item.name for item in KINDS[kind].inputs[:6]]
    for given in (part for size in range(len(names) + 1) for part in itertools.combinations(names, size)):
        errors = KINDS[kind].rule(given)
        missing = [item.name for item in KINDS[kind].inputs if item.required and item.name not in given]
        values = {"store": STORE, "inputs": dict.fromkeys(given, DIGEST)}
        if not missing and not errors:
            assert render(str(kind), values)
            continue
        with pytest.raises(HelmError) as refused:
            render(str(kind), values)
        assert any(text in str(refused.value) for text in [*errors, *(f"inputs.{name}" for name in missing)]), given


@pytest.mark.parametrize("chart", ["sft", "reward"])
@pytest.mark.parametrize("name", ["null", "true", "no", "off", "nan"])
def test_release_name_like_a_yaml_number_or_boolean_stays_a_string(chart: str, name: str) -> None:
    inputs = {"model": DIGEST} | ({"rows": DIGEST} if chart == "sft" else {})
    values = {"store": STORE, "inputs": inputs}
    if chart == "reward":
        values |= {"autoscaling": {"mode": "keda"}, "monitoring": {"podMonitor": True}}
    objects = Helm().render(chart, name, "prod", values)
    assert objects
    for item in objects:
        assert isinstance(item["metadata"]["name"], str)
        assert item["metadata"].get("labels", {}).get("app.kubernetes.io/instance", name) == name
    for pod in pods(objects):
        assert pod["serviceAccountName"] == name
        for container in pod["containers"]:
            assert all(isinstance(variable.get("value", ""), str) for variable in container["env"])


@pytest.mark.parametrize("chart", ["sft", "reward"])
def test_env_in_values_overrides_variables_of_the_chart(chart: str) -> None:
    inputs = {"model": DIGEST} | ({"rows": DIGEST} if chart == "sft" else {})
    env = [{"name": name, "value": "/cache"} for name in ("HF_HOME", "NCCL_DEBUG", "EDITR1_RETRIES", "MINE")]
    for pod in pods(render(chart, {"store": STORE, "inputs": inputs, "env": env})):
        for container in pod["containers"]:
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names))
            assert {"name": "HF_HOME", "value": "/cache"} in container["env"]
            assert {"HOME", "MINE", "EDITR1_CONFIG"} <= set(names)


@pytest.mark.parametrize("chart", [chart_of(kind) for kind in Kind])
def test_charts_accept_the_same_names_as_the_package(chart: str) -> None:
    inputs = {item.name: DIGEST for item in KINDS[kind_of(chart)].inputs if item.required}
    values: dict[str, Any] = {"store": STORE, "inputs": inputs}
    if chart == "grpo":
        values["reward"] = {"release": "rrm"}
    inputs |= {"sft": {"rows": DIGEST}, "evaluate": {"cases": DIGEST, "pairs": DIGEST, "sft": DIGEST}}.get(chart, {})
    for name in ("a", "b-2", "x" * 45):
        assert name_fault(name) is None
        assert Helm().render(chart, name, "prod", values | {"run": name, "stage": name})
    for name in ("2-sft", "a.b", "Sft", "a-", "x" * 46):
        assert name_fault(name)
        with pytest.raises(HelmError, match="is not valid: use at most 45 lower-case letters") as refused:
            Helm().render(chart, name, "prod", values)
        assert f'"{name}"' in str(refused.value)
        for value in ("run", "stage"):
            with pytest.raises(HelmError, match=f"/{value}"):
                Helm().render(chart, "demo", "prod", values | {value: name})


@pytest.mark.parametrize("path", [path for path in CASES if path.parts[-3] != "operator"], ids=case_id)
def test_names_derived_from_the_longest_release_name_are_valid(path: Path) -> None:
    """A pod name is also a host name and the value of a label, so it has at most 63 characters."""
    objects = Helm().render(path.parts[-3], "r" * MAX_NAME_LENGTH, "prod", yaml.safe_load(path.read_text()))
    suffixes = {"PyTorchJob": "-worker-999", "Deployment": "-0123456789-01234"}
    for item in objects:
        name = item["metadata"]["name"] + suffixes.get(item["kind"], "")
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= 63, (item["kind"], name)
        assert all(len(value) <= 63 for value in item["metadata"].get("labels", {}).values())


def test_generated_files_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", CHARTS / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.all_files().items():
        assert path.read_text() == text, f"{path}: run python charts/generate.py"


@pytest.mark.parametrize("path", sorted(CHARTS.glob("*/values.schema.json")), ids=lambda path: path.parent.name)
def test_every_value_has_a_description(path: Path) -> None:
    schema = json.loads(path.read_text())
    for where, node in described(schema, path.parent.name):
        assert node.get("description"), where
    assert schema["additionalProperties"] is False


def described(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            yield f"{where}.{name}", child
        for name, child in node.get("$defs", {}).items():
            yield from described(child, f"{where}#{name}")


def test_dashboard_and_alerts_query_exported_metrics_only() -> None:
    known = {str(metric) for metric in Metric}
    suffixes = ("", "_bucket", "_sum", "_count")
    exported = {name + suffix for name in known for suffix in suffixes}
    texts = [(CHARTS / "reward/dashboards/reward.json").read_text()]
    texts.append((CHARTS / "reward/templates/monitoring.yaml").read_text())
    queried = {name for text in texts for name in re.findall(r"editr1_\w+", text)}
    assert queried and queried <= exported
    used = {name for name in known if any(name + suffix in queried for suffix in suffixes)}
    assert used == known, f"no panel or alert queries {known - used}"


@pytest.mark.parametrize(
    ("model", "folder"), [(DIGEST, "/work/downloads/" + "a" * 16), ("run:r/s/model", "/work/models/$(EDITR1_POD)")]
)
def test_vllm_replicas_on_one_claim_share_a_model_folder_only_if_its_digest_is_given(model: str, folder: str) -> None:
    (pod,) = pods(render("reward", {"store": STORE, "inputs": {"model": model}, "vllm": {"enabled": True}}))
    fetch, vllm = pod["initContainers"]
    assert fetch["command"][-1] == folder and f"--model={folder}" in vllm["args"]
    for container in (fetch, vllm):
        (name,) = [item for item in container["env"] if item["name"] == "EDITR1_POD"]
        assert name["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_vllm_does_not_take_sampling_defaults_from_the_model_folder() -> None:
    values = {"store": STORE, "inputs": {"model": DIGEST}, "vllm": {"enabled": True, "args": ["--seed", "1"]}}
    (pod,) = pods(render("reward", values))
    (vllm,) = [container for container in pod["initContainers"] if container["name"] == "vllm"]
    assert "--generation-config=vllm" in vllm["args"]
