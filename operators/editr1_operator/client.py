"""Create the operator's Kubernetes client, which has a short timeout, never retries a request, and counts its requests."""

from __future__ import annotations

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.client import KubernetesClient
from editr1_operator.metrics import API_REQUESTS

MANAGER = "editr1-operator"
"""Name of the operator.

It is the field manager of the operator's writes, and the value of the label ``managed-by`` on the objects that it creates.
"""
TIMEOUT_SECONDS = 20


def make_client(connections: int) -> KubernetesClient:
    """Return a client for the cluster of the operator's pod or, outside a pod, for the cluster in the kubeconfig.

    The client does not retry failed requests, because the work queue repeats the whole reconciliation.
    """
    return KubernetesClient(
        ClusterConfig(),
        manager=MANAGER,
        timeout_s=TIMEOUT_SECONDS,
        retries=0,
        connections=connections,
        on_request=lambda method, resource: API_REQUESTS.labels(method, resource).inc(),
    )
