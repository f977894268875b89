"""The operator's Kubernetes client: short timeouts, no retries in the transport, and counted requests."""

from __future__ import annotations

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.client import KubernetesClient
from editr1_operator.metrics import API_REQUESTS

MANAGER = "editr1-operator"
"""Field manager of the operator's writes, and the label that marks its objects."""
TIMEOUT_SECONDS = 20


def make_client(connections: int) -> KubernetesClient:
    """Open the cluster that the pod, or else the kubeconfig, belongs to. The work queue repeats what fails."""
    return KubernetesClient(
        ClusterConfig(),
        manager=MANAGER,
        timeout_s=TIMEOUT_SECONDS,
        retries=0,
        connections=connections,
        on_request=lambda method, resource: API_REQUESTS.labels(method, resource).inc(),
    )
