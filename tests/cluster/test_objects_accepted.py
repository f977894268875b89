"""The API server accepts the objects that the charts render for every ci/*-values.yaml, and Pod Security admits their pods."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.launch.kubernetes.helm import Helm
from tests.cluster.conftest import ROOT, Lab
from tests.unit.launch.kubernetes.test_charts import case_id

CASES = sorted((ROOT / "charts").glob("*/ci/*-values.yaml"))


def pods_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a pod for each pod template in the object."""
    templates = [item["spec"]["template"]] if item["kind"] == "Deployment" else []
    templates += [r["template"] for r in item.get("spec", {}).get("pytorchReplicaSpecs", {}).values()]
    pods = []
    for number, template in enumerate(templates):
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
        pod["metadata"]["name"] = f"probe-{number}"
        # The classes and accounts of the examples do not exist on the test cluster.
        pod["spec"].pop("priorityClassName", None)
        pod["spec"].pop("runtimeClassName", None)
        pod["spec"]["serviceAccountName"] = "default"
        pods.append(pod)
    return pods


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_server_accepts_rendered_objects(lab: Lab, path: Path) -> None:
    chart, values = path.parts[-3], yaml.safe_load(path.read_text())
    if chart == "operator":
        values["namespaces"] = [lab.namespace]  # the chart creates a Role in each of these namespaces
    objects = Helm().render(chart, "probe", lab.namespace, values)
    known = lab.kubectl("api-resources", "--no-headers")
    sent = [item for item in objects if f" {item['kind']} " in known + " " or item["kind"] in known.split()]
    missing = {item["kind"] for item in objects} - {item["kind"] for item in sent}
    assert missing <= {"PodMonitor", "PrometheusRule", "ScaledObject"}, missing
    text = yaml.safe_dump_all([*sent, *(pod for item in objects for pod in pods_of(item))])
    lab.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)


def test_manifests_that_are_applied_again_leave_fields_of_controllers_alone(lab: Lab) -> None:
    queued = {
        **yaml.safe_load((ROOT / "charts/sft/ci/queue-values.yaml").read_text()),
        "nodeSelector": {"nobody": "here"},
    }
    scaled = {
        **yaml.safe_load((ROOT / "charts/reward/ci/hpa-values.yaml").read_text()),
        "nodeSelector": {"nobody": "here"},
    }
    objects = Helm().render("sft", "again-sft", lab.namespace, queued)
    objects += Helm().render("reward", "again-rrm", lab.namespace, scaled)
    known = lab.kubectl("api-resources", "--no-headers")
    text = yaml.safe_dump_all([item for item in objects if item["kind"] in known.split()])
    apply = ("apply", "--server-side", "--field-manager=flux", "-f", "-")
    job, deployment = ("pytorchjob", "again-sft"), ("deployment", "again-rrm")
    lab.kubectl(*apply, stdin=text)
    try:
        suspend = '{"spec":{"runPolicy":{"suspend":true}}}'
        lab.kubectl("patch", *job, "--field-manager=queue", "--type=merge", "-p", suspend)
        lab.kubectl("patch", *deployment, "--field-manager=autoscaler", "--type=merge", "-p", '{"spec":{"replicas":3}}')
        lab.kubectl(*apply, stdin=text)
        assert lab.kubectl("get", *job, "-o", "jsonpath={.spec.runPolicy.suspend}") == "true"
        assert lab.kubectl("get", *deployment, "-o", "jsonpath={.spec.replicas}") == "3"
    finally:
        lab.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=text)
