"""The page on clusters of different kinds shows values that the charts accept, and has a row for each kind."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.chart_operator import OperatorValues
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import validate
from editr1.launch.kubernetes.values import MODELS, checked, kind_of, shared_values

ROOT = Path(__file__).parents[3]
PAGE = "docs/how-to/your-cluster.md"
TEXT = (ROOT / PAGE).read_text()
BLOCKS = re.findall(r"```yaml\n# (\S+)\n(.*?)```", TEXT, re.S)
ROWS = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(
    "cluster",
    [
        *("OpenShift", "EKS", "GKE", "AKS", "Kueue", "Istio", "Linkerd", "Argo CD", "Flux", "Kyverno", "Gatekeeper"),
        *("air gap", "proxies", "IPv6", "shared volumes"),
    ],
)
def test_page_has_a_row_for_the_kind_of_cluster(cluster: str) -> None:
    (row,) = [row for row in ROWS if cluster in row[0]]
    assert len(row) == 4


def test_charts_accept_the_values_of_every_example() -> None:
    assert BLOCKS and len(BLOCKS) == TEXT.count("```yaml")
    for file, text in BLOCKS:
        data = yaml.safe_load(text)
        if file == "charts/operator":
            validate(OperatorValues, data, where=text)
            continue
        assert file == "manifests/cluster.yaml"
        cluster = validate(ClusterConfig, data, where=text)
        stages = [(kind_of(name), name) for name in cluster.stages]
        for kind, stage in stages or [(kind, str(kind)) for kind in MODELS]:
            checked(kind, shared_values(cluster, kind, stage), text)


def test_every_value_in_the_table_exists() -> None:
    known = {name for model in MODELS.values() for name in paths(model.model_json_schema(by_alias=True))}
    known |= set(paths(OperatorValues.model_json_schema(by_alias=True)))
    known |= set(ClusterConfig.model_fields)
    for row in ROWS[2:]:
        for name in re.findall(r"`([a-z][A-Za-z0-9_.]*)(?:[:=][^`]*)?`", f"{row[1]} {row[3]}"):
            assert name in known or name in ("restricted", "sha256", "hub"), f"{PAGE}: {name}"


def paths(schema: dict[str, Any], node: dict[str, Any] | None = None, head: str = "") -> list[str]:
    """Return the dotted path of every value in a JSON schema of chart values."""
    node = schema if node is None else node
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    found = []
    for name, child in node.get("properties", {}).items():
        found += [head + name, *paths(schema, child, f"{head}{name}.")]
    return found
