"""Values of the chart ``operator``, which installs the controller that executes EditRun resources."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from editr1.config.chart import ChartSettings, ImageValues, Labels, Name, Objects, ResourceValues


class OperatorStoreValues(ChartSettings):
    """Artifact stores that the operator may open, and the access keys for them.

    Which store a run uses is set in its run file or in the cluster settings of its namespace.
    """

    allowed: list[Annotated[str, Field(pattern=r"^s3://[a-z0-9]")]] = []
    """Stores that the operator may open with its keys, as s3://bucket or s3://bucket/prefix. If empty, every store is
    allowed."""

    secret_name: Name = "editr1-s3"
    """Name of an existing Secret with the access keys, in the operator's namespace. If empty, the pod's own identity is
    used, such as a cloud workload identity."""
    access_key: str = "access-key"
    """Entry of the Secret ``secretName`` that contains the S3 access key."""
    secret_key: str = "secret-key"
    """Entry of the Secret ``secretName`` that contains the S3 secret key."""


class NotifyValues(ChartSettings):
    """Webhook that receives a CloudEvent by HTTP POST when the state of a run changes."""

    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Address of the webhook. If empty, no events are sent."""
    secret_name: Name = ""
    """Name of an existing Secret. The value of its entry ``token`` is sent to the webhook as the bearer token."""


class OperatorTelemetryValues(ChartSettings):
    """Export of the operator's spans with OpenTelemetry."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for the spans of runs and attempts, such as http://jaeger.observability:4318. If empty, spans
    are not exported."""


class OperatorMonitoringValues(ChartSettings):
    """Monitoring with Prometheus."""

    pod_monitor: bool = False
    """Create a PodMonitor (prometheus-operator) that scrapes /metrics."""
    labels: Labels = {}
    """Labels of the PodMonitor, for a Prometheus that selects monitors by label."""


class OperatorValues(ChartSettings):
    """Values of charts/operator."""

    namespaces: list[Annotated[str, Field(min_length=1, max_length=63)]] = ["editr1"]
    """Namespaces whose runs the operator manages. They must exist. The chart creates a Role for the operator in each of
    them."""
    cluster_wide: bool = False
    """Manage the runs of all namespaces. The chart then creates a ClusterRole for the operator and ignores
    ``namespaces``."""
    crds: bool = True
    """Install the CustomResourceDefinition of EditRun. It remains in the cluster when the release is uninstalled."""
    cluster: dict[str, Any] = {}
    """Cluster settings of all runs, in the format of manifests/cluster.yaml. A ConfigMap named editr1-cluster in a
    namespace overrides them for the runs of that namespace."""
    image: ImageValues = ImageValues(repository="editr1/operator")
    """Container image of the operator."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Maximum number of runs that the operator reconciles concurrently."""
    store: OperatorStoreValues = OperatorStoreValues()
    """Artifact stores that the operator may open, and the access keys for them."""
    notify: NotifyValues = NotifyValues()
    """Webhook that is notified of state changes."""
    telemetry: OperatorTelemetryValues = OperatorTelemetryValues()
    """Export of spans."""
    monitoring: OperatorMonitoringValues = OperatorMonitoringValues()
    """Monitoring of the operator with Prometheus."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """CPU and memory of the operator."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: Objects = []
    """Tolerations of the pod."""
    priority_class_name: Name = ""
    """Name of an existing PriorityClass."""
    pod_labels: Labels = {}
    """Additional labels of the pod."""
    env: Objects = []
    """Additional environment variables (Kubernetes EnvVar)."""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    """Numeric ID that is both the user ID and the group ID of the container."""
