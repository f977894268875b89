"""Quotas, accelerators and the resources that a quota demands of every container."""

from typing import Any

import pytest

from editr1.launch.kubernetes.capacity import demanded, devices, exhausted, lacking, quantity
from editr1.launch.kubernetes.errors import ClusterError


def node(**allocatable: Any) -> dict[str, Any]:
    return {"status": {"allocatable": {name.replace("__", "/"): amount for name, amount in allocatable.items()}}}


@pytest.mark.parametrize(
    ("text", "number"), [("8", 8), ("1k", 1000), ("500m", 0.5), ("1Gi", 2**30), ("12e6", 12e6), ("2E", 2e18), (3, 3)]
)
def test_quantities_are_parsed_as_kubernetes_writes_them(text: object, number: float) -> None:
    assert float(quantity(text)) == number


@pytest.mark.parametrize("text", ["", "many", None, []])
def test_other_texts_are_no_quantities(text: object) -> None:
    with pytest.raises(ClusterError, match="is not a quantity of Kubernetes"):
        quantity(text)


def test_mig_devices_and_shared_gpus_are_counted() -> None:
    nodes = [
        node(cpu="4", **{"nvidia.com/gpu": "8", "nvidia.com/mig-1g.10gb": "7"}),
        node(
            **{"nvidia.com/gpu.shared": "1k", "amd.com/gpu": "2", "nvidia.com/mig-1g.10gb": "7", "nvidia.com/gpu": "0"}
        ),
        {"status": {}},
    ]
    assert devices(nodes) == {
        "amd.com/gpu": 2,
        "nvidia.com/gpu": 8,
        "nvidia.com/gpu.shared": 1000,
        "nvidia.com/mig-1g.10gb": 14,
    }


@pytest.mark.parametrize(
    ("hard", "used", "full"),
    [
        ({"pods": "10"}, {"pods": "9"}, []),
        ({"pods": "10"}, {"pods": "10"}, ["pods"]),
        ({"requests.cpu": "4"}, {"requests.cpu": "4000m"}, ["requests.cpu"]),
        ({"limits.memory": "1Gi"}, {"limits.memory": "1100Mi"}, ["limits.memory"]),
        ({"count/secrets": "0"}, {"count/secrets": "0"}, []),
        ({"pods": "0"}, {}, ["pods"]),
        ({"cpu": "0"}, {"cpu": "0"}, ["cpu"]),
        ({"services.nodeports": "0"}, {}, []),
    ],
)
def test_used_up_quotas(hard: dict[str, str], used: dict[str, str], full: list[str]) -> None:
    assert exhausted({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}}) == full


def test_a_quota_demands_what_no_limit_range_adds() -> None:
    quotas = [
        {"metadata": {"name": "team"}, "spec": {"hard": {"cpu": "8", "limits.memory": "64Gi", "pods": "9"}}},
        {"metadata": {"name": "other"}, "spec": {"hard": {"limits.cpu": "8", "requests.nvidia.com/gpu": "8"}}},
    ]
    assert demanded(quotas, []) == {"requests.cpu": "team", "limits.memory": "team", "limits.cpu": "other"}
    limits = {"spec": {"limits": [{"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"cpu": "1"}}]}}
    assert demanded(quotas, [limits]) == {"limits.cpu": "other"}


def test_a_limit_is_also_a_request() -> None:
    names = ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"]
    assert lacking({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}, names) == ["limits.cpu"]
    assert lacking({}, names) == names
