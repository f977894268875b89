"""Values of the operator's chart."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from editr1.config.chart import ChartSettings, ImageValues, Labels, Name, Objects, ResourceValues


class OperatorStoreValues(ChartSettings):
    """How the operator itself opens the bucket. Which bucket, a namespace's settings say."""

    allowed: list[Annotated[str, Field(pattern=r"^s3://[a-z0-9]")]] = []
    """Stores that it may open with its keys, as s3://bucket or s3://bucket/prefix; empty allows any that a run names."""

    secret_name: Name = "editr1-s3"
    """Existing Secret with the access keys, in the operator's own namespace; empty uses the pod's own identity."""
    access_key: str = "access-key"
    """Key of that Secret that holds the access key."""
    secret_key: str = "secret-key"
    """Key of that Secret that holds the secret key."""


class NotifyValues(ChartSettings):
    """Who is told when a run changes state, by a CloudEvent in an HTTP POST."""

    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Address; empty tells nobody."""
    secret_name: Name = ""
    """Existing Secret whose ``token`` is sent as bearer token."""


class OperatorTelemetryValues(ChartSettings):
    """OpenTelemetry."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP over HTTP, such as http://jaeger.observability:4318, for the spans of runs and attempts."""


class OperatorMonitoringValues(ChartSettings):
    """Metrics."""

    pod_monitor: bool = False
    """A PodMonitor (prometheus-operator) that scrapes /metrics."""
    labels: Labels = {}
    """Its labels, where your operator selects by labels."""


class OperatorValues(ChartSettings):
    """Values of charts/operator."""

    namespaces: list[Annotated[str, Field(min_length=1, max_length=63)]] = ["editr1"]
    """Namespaces whose runs it takes on, with a Role in each; they must exist."""
    cluster_wide: bool = False
    """Take on the runs of every namespace, with a ClusterRole; ``namespaces`` is then ignored."""
    crds: bool = True
    """Install the EditRun resource. It stays when the release goes."""
    cluster: dict[str, Any] = {}
    """What the stages of all runs share, as manifests/cluster.yaml; a ConfigMap editr1-cluster in a namespace is laid over it."""
    image: ImageValues = ImageValues(repository="editr1/operator")
    """The operator's image."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Runs looked at side by side."""
    store: OperatorStoreValues = OperatorStoreValues()
    """Access to the bucket."""
    notify: NotifyValues = NotifyValues()
    """Webhook."""
    telemetry: OperatorTelemetryValues = OperatorTelemetryValues()
    """Where spans go."""
    monitoring: OperatorMonitoringValues = OperatorMonitoringValues()
    """Objects for Prometheus."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """CPU and memory of the operator."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: Objects = []
    """Taints that the pod bears."""
    priority_class_name: Name = ""
    """Existing PriorityClass."""
    pod_labels: Labels = {}
    """Further labels of the pod."""
    env: Objects = []
    """Further environment variables (Kubernetes EnvVar)."""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    """Numeric user and group of the container."""
