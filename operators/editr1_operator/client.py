"""The operator's Kubernetes client: short timeouts, no retries in the transport, and counted requests."""

from __future__ import annotations

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.client import KubernetesClient
from editr1_operator.metrics import API_REQUESTS

MANAGER = "editr1-operator"
"""Field manager of the operator's writes, and value of the label ``managed-by`` of its objects."""
TIMEOUT_SECONDS = 20


def make_client(connections: int) -> KubernetesClient:
    """Return a client for the cluster of the pod or, outside a pod, of the kubeconfig. The work queue does the retries."""
    return KubernetesClient(
        ClusterConfig(),
        manager=MANAGER,
        timeout_s=TIMEOUT_SECONDS,
        retries=0,
        connections=connections,
        on_request=lambda method, resource: API_REQUESTS.labels(method, resource).inc(),
    )
