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
