"""Values of the chart ``operator``, which installs the controller that executes EditRun resources."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from editr1.config.chart import ChartSettings, ImageValues, Labels, Name, PodValues, ResourceValues
from editr1.config.names import Namespace


class OperatorStoreValues(ChartSettings):
    """Artifact stores that the operator may open, and the access keys for them.

    The store of a run is set in its run file or in the cluster settings of its namespace.
    """

    allowed: list[Annotated[str, Field(pattern=r"^s3://[a-z0-9]")]] = []
    """Addresses of the stores that the operator may open with its access keys, as s3://bucket or s3://bucket/prefix. If
    empty, every store is allowed."""

    secret_name: Name = "editr1-s3"
    """Name of an existing Secret in the operator's namespace, with the S3 access key and secret key. If empty, the
    operator authenticates with its pod's own identity, such as a cloud workload identity."""
    access_key: str = "access-key"
    """Name of the entry that contains the S3 access key, in the Secret named by ``secretName``."""
    secret_key: str = "secret-key"
    """Name of the entry that contains the S3 secret key, in the Secret named by ``secretName``."""
    ca_config_map: Name = ""
    """Name of an existing ConfigMap with a PEM bundle of certificate authorities. The operator trusts these authorities when it
    connects to the stores and, besides the public ones, when it connects to ``notify.url``."""
    ca_key: str = "ca.crt"
    """Name of the entry that contains the PEM bundle, in the ConfigMap named by ``caConfigMap``."""


class NotifyValues(ChartSettings):
    """Webhook that receives a CloudEvent by HTTP POST when the state of a run changes."""

    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """URL of the webhook. If empty, no events are sent."""
    secret_name: Name = ""
    """Name of an existing Secret. The value of its entry ``token`` is sent to the webhook as the bearer token."""


class OperatorTelemetryValues(ChartSettings):
    """Export of the operator's spans with OpenTelemetry."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint to which the spans of runs and attempts are sent, such as http://jaeger.observability:4318. If
    empty, spans are not exported."""


class OperatorMonitoringValues(ChartSettings):
    """Monitoring of the operator with Prometheus."""

    pod_monitor: bool = False
    """Create a PodMonitor (a resource of prometheus-operator), so that Prometheus scrapes /metrics."""
    labels: Labels = {}
    """Labels of the PodMonitor. They are needed if Prometheus selects PodMonitors by label."""


class OperatorValues(PodValues):
    """Helm values for the ``operator`` chart."""

    namespaces: list[Namespace] = ["editr1"]
    """Namespaces whose runs the operator manages. They must exist. The chart creates a Role for the operator in each of
    them."""
    cluster_wide: bool = False
    """Manage the runs of all namespaces. The chart then creates a ClusterRole for the operator and ignores
    ``namespaces``."""
    crds: bool = True
    """Install the CustomResourceDefinition of EditRun. It remains in the cluster when the Helm release is
    uninstalled. A definition that already exists and does not belong to this release is left unchanged. Set it to false
    if you have no permission to read CustomResourceDefinitions, or if Argo CD installs more than one operator."""
    cluster: dict[str, Any] = {}
    """Cluster settings of all runs, in the format of manifests/cluster.yaml. Settings in the ConfigMap editr1-cluster
    of a namespace override them for the runs of that namespace."""
    image: ImageValues = ImageValues(repository="editr1/operator")
    """Container image of the operator."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Maximum number of runs that the operator reconciles concurrently."""
    store: OperatorStoreValues = OperatorStoreValues()
    """Artifact stores that the operator may open, and the access keys for them."""
    notify: NotifyValues = NotifyValues()
    """Webhook that is notified when the state of a run changes."""
    telemetry: OperatorTelemetryValues = OperatorTelemetryValues()
    """Export of the operator's spans."""
    monitoring: OperatorMonitoringValues = OperatorMonitoringValues()
    """Scraping of the operator's metrics by Prometheus."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """CPU and memory of the operator's container."""
