"""Whether an operator watches a namespace, and addresses of trace collectors."""

from typing import Any

import pytest

from editr1.launch.kubernetes.collector import service_of
from editr1.launch.kubernetes.operator_presence import from_deployments


def operator(namespace: str, watched: str, available: int = 1) -> dict[str, Any]:
    env = [{"name": "HOME", "value": "/tmp"}, {"name": "EDITR1_OPERATOR_NAMESPACES", "value": watched}]
    return {
        "metadata": {"name": "operator", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "env": env}]}}},
        "status": {"availableReplicas": available} if available else {},
    }


@pytest.mark.parametrize(
    ("deployments", "watches", "words"),
    [
        ([], False, "the cluster has the EditRun resource but no operator"),
        ([operator("a", "a,lab")], True, "a/operator executes the runs"),
        ([operator("a", "")], True, "a/operator"),
        ([operator("a", "a"), operator("b", "b,c")], False, "a/operator watches a; b/operator watches b, c"),
        ([operator("a", "lab", available=0)], False, "none of its pods is ready"),
        ([operator("a", "lab", available=0), operator("b", "")], True, "b/operator"),
    ],
)
def test_operators_of_the_cluster(deployments: list[dict[str, Any]], watches: bool, words: str) -> None:
    found = from_deployments(deployments, "lab")
    assert found.watches is watches and words in found.detail


@pytest.mark.parametrize(
    ("endpoint", "service"),
    [
        ("http://jaeger.observability:4318", ("jaeger", "observability")),
        ("http://jaeger:4318/v1/traces", ("jaeger", "lab")),
        ("https://otel.obs.svc:4318", ("otel", "obs")),
        ("https://otel.obs.svc.cluster.local.", ("otel", "obs")),
        ("https://otel.example.com:4318", None),
        ("http://10.0.0.7:4318", None),
        ("http://[fd00::7]:4318", None),
        ("http://localhost:4318", None),
    ],
)
def test_services_are_told_apart_from_other_hosts(endpoint: str, service: tuple[str, str] | None) -> None:
    assert service_of(endpoint, "lab") == service
