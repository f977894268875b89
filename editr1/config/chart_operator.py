"""Values of the operator's chart."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from editr1.config.chart import ChartSettings, ImageValues, Labels, Name, Objects, ResourceValues


class OperatorStoreValues(ChartSettings):
    """Access of the operator to artifact stores. The settings of a namespace select the store of its runs."""

    allowed: list[Annotated[str, Field(pattern=r"^s3://[a-z0-9]")]] = []
    """Stores that the operator may open with its keys, as s3://bucket or s3://bucket/prefix. Empty allows every
    store."""

    secret_name: Name = "editr1-s3"
    """Existing Secret with the access keys, in the operator's namespace. Empty uses the pod's own identity, such as a
    cloud workload identity."""
    access_key: str = "access-key"
    """Key in that Secret under which the access key is stored."""
    secret_key: str = "secret-key"
    """Key in that Secret under which the secret key is stored."""


class NotifyValues(ChartSettings):
    """Webhook that receives a CloudEvent by HTTP POST when the state of a run changes."""

    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Address of the webhook; empty sends nothing."""
    secret_name: Name = ""
    """Existing Secret whose key ``token`` is sent as the bearer token."""


class OperatorTelemetryValues(ChartSettings):
    """OpenTelemetry export."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for the spans of runs and attempts, such as http://jaeger.observability:4318; empty exports
    none."""


class OperatorMonitoringValues(ChartSettings):
    """Monitoring with Prometheus."""

    pod_monitor: bool = False
    """Create a PodMonitor (prometheus-operator) that scrapes /metrics."""
    labels: Labels = {}
    """Labels of the PodMonitor, for a Prometheus that selects monitors by label."""


class OperatorValues(ChartSettings):
    """Values of charts/operator."""

    namespaces: list[Annotated[str, Field(min_length=1, max_length=63)]] = ["editr1"]
    """Namespaces whose runs the operator manages. They must exist; the operator gets a Role in each of them."""
    cluster_wide: bool = False
    """Manage the runs of all namespaces, with a ClusterRole. ``namespaces`` is then ignored."""
    crds: bool = True
    """Install the CustomResourceDefinition of EditRun. It stays in the cluster when the release is uninstalled."""
    cluster: dict[str, Any] = {}
    """Settings shared by the stages of all runs, in the format of manifests/cluster.yaml. A ConfigMap named
    editr1-cluster in a namespace overrides them there."""
    image: ImageValues = ImageValues(repository="editr1/operator")
    """Image of the operator."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of runs reconciled concurrently."""
    store: OperatorStoreValues = OperatorStoreValues()
    """Access to artifact stores."""
    notify: NotifyValues = NotifyValues()
    """Notification of state changes."""
    telemetry: OperatorTelemetryValues = OperatorTelemetryValues()
    """Export of spans."""
    monitoring: OperatorMonitoringValues = OperatorMonitoringValues()
    """Metrics."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """CPU and memory of the operator."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: Objects = []
    """Tolerations of the pod."""
    priority_class_name: Name = ""
    """Existing PriorityClass."""
    pod_labels: Labels = {}
    """Additional labels of the pod."""
    env: Objects = []
    """Additional environment variables (Kubernetes EnvVar)."""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    """Numeric user and group ID of the container."""
