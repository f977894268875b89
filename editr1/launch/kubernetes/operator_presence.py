"""Find out whether an operator executes the EditRuns of a namespace.

The EditRun resource belongs to the whole cluster and stays when an operator is uninstalled, so its existence does not
answer this question. The answer is less certain if the current user has few permissions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.errors import RequestRefused

SELECTOR = "app.kubernetes.io/name=editr1-operator"
"""Label selector of the objects of the operator's chart."""
NAMESPACES_VARIABLE = "EDITR1_OPERATOR_NAMESPACES"
"""Environment variable of the operator with the namespaces that it watches. An empty value means all namespaces."""


@dataclass(frozen=True)
class Presence:
    """Whether an operator watches a namespace: True, False, or None if the current user cannot find out."""

    watches: bool | None
    detail: str


def presence(client: KubernetesClient, namespace: str) -> Presence:
    """Look for an operator that watches ``namespace``. Raises ClusterError if the API server does not respond.

    The operator is searched for among the Deployments of all namespaces. If the current user has no permission to list
    them, the Roles in ``namespace`` are read instead: the operator's chart creates one in each namespace that the operator
    watches, unless it watches the whole cluster.
    """
    deployments = _items(client, "/apis/apps/v1/deployments")
    if deployments is not None:
        return from_deployments(deployments, namespace)
    roles = _items(client, f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles")
    if roles:
        return Presence(True, f"an operator has permissions in namespace {namespace}; whether it runs was not checked")
    return Presence(
        None,
        "not checked, because the current user has no permission to list Deployments in all namespaces; if no operator"
        " starts the run, use editr1 run --no-operator",
    )


def from_deployments(deployments: Iterable[Mapping[str, Any]], namespace: str) -> Presence:
    """Decide from the Deployments of all operators in the cluster."""
    others = []
    stopped = ""
    for item in deployments:
        meta = item["metadata"]
        name = f"{meta['namespace']}/{meta['name']}"
        watched = _watched(item)
        if watched and namespace not in watched:
            others.append(f"{name} watches {', '.join(watched)}")
        elif int((item.get("status") or {}).get("availableReplicas") or 0) < 1:
            stopped = f"operator {name} watches namespace {namespace}, but none of its pods is ready; see its log"
        else:
            return Presence(True, f"operator {name} executes the runs")
    if stopped:
        return Presence(False, stopped)
    found = "; ".join(others) or "the cluster has the EditRun resource but no operator"
    return Presence(
        False,
        f"no operator watches namespace {namespace} ({found}); add the namespace to the operator's chart value namespaces,"
        " install an operator, or use editr1 run --no-operator",
    )


def _watched(deployment: Mapping[str, Any]) -> list[str]:
    """Return the namespaces that an operator watches; an empty list stands for all of them."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env") or ():
            if variable["name"] == NAMESPACES_VARIABLE:
                return [name for name in str(variable.get("value") or "").split(",") if name]
    return []


def _items(client: KubernetesClient, path: str) -> list[Mapping[str, Any]] | None:
    """Return the objects of the operator's chart at ``path``, or None if the current user may not list them."""
    try:
        found = client.get_path(path, labelSelector=SELECTOR)
    except RequestRefused as error:
        if error.status not in (401, 403):
            raise
        return None
    return list((found or {}).get("items") or ())
