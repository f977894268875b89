"""Values that every stage chart takes. The charts' ``values.yaml``, ``values.schema.json`` and README are generated from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from editr1.config.base import Settings

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity, such as 500m or 16Gi."""
NAME = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
Name = Annotated[str, Field(max_length=253, pattern=NAME)]
"""Name of a Kubernetes object; empty means none."""
Labels = dict[str, str]
Objects = list[dict[str, Any]]


class ChartSettings(Settings):
    """A section of chart values: camelCase on disk, unknown keys refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ImageValues(ChartSettings):
    """The container image."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*$")] = "editr1"
    """Name without tag or digest."""
    tag: Annotated[str, Field(pattern=r"^([\w][\w.-]*)?$")] = ""
    """Tag; empty takes the chart's appVersion. Ignored where a digest is given."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Exact image, as sha256:<64 hex digits>; what submit freezes in the run record."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the node asks the registry."""
    pull_secrets: list[Name] = []
    """Names of existing image pull secrets."""


class StoreValues(ChartSettings):
    """The artifact store: an S3-compatible bucket. Keys come from an existing Secret, never from values."""

    url: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]*(/.*)?)?$")] = ""
    """s3://bucket or s3://bucket/prefix. Must be set."""
    endpoint: Annotated[str, Field(pattern=r"^((https?://)?[A-Za-z0-9.\-\[\]:]+)?$")] = ""
    """S3 server as pods reach it, such as http://s3.editr1.svc:8333; empty means AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    """S3 region; empty asks the server."""
    secret_name: Name = "editr1-s3"
    """Existing Secret with the access keys; empty uses the pod's own identity from the environment you give."""
    access_key: str = "access-key"
    """Key of that Secret that holds the access key."""
    secret_key: str = "secret-key"
    """Key of that Secret that holds the secret key."""
    ca_config_map: Name = ""
    """Existing ConfigMap with a PEM bundle of authorities to trust for the endpoint."""
    ca_key: str = "ca.crt"
    """Key of that ConfigMap."""


class ResourceValues(ChartSettings):
    """What the scheduler sets aside, and the most a container may take. GPUs have their own value."""

    requests: dict[str, Any] = {"cpu": "1", "memory": "4Gi"}
    """Kubernetes resource requests."""
    limits: dict[str, Any] = {}
    """Kubernetes resource limits."""


class ScratchValues(ChartSettings):
    """The working folder /work: downloads, checkpoints before they are committed, caches."""

    size: Quantity = "50Gi"
    """Most that the pod's own (emptyDir) folder may hold."""
    claim: Name = ""
    """Existing PersistentVolumeClaim to use in its place, so that downloads survive the pod."""


class TelemetryValues(ChartSettings):
    """OpenTelemetry. Without an endpoint spans still go to the bucket, and no step waits for a collector."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP over HTTP, such as http://jaeger.observability:4318."""
    metrics_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """Where a stage's progress and figures go by OTLP over HTTP, such as http://collector:4318/v1/metrics. The reward service is scraped instead."""
    traceparent: Annotated[str, Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")] = ""
    """W3C parent of the stage's spans; submit sets it."""
    publish_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """How often rank 0 writes progress and spans to the bucket, in seconds."""
    json_logs: bool = False
    """Log lines as JSON with trace ids."""


class NetworkPolicyValues(ChartSettings):
    """A NetworkPolicy around the stage's pods."""

    enabled: bool = False
    """Whether to make one. It lets out DNS, the ports below and the stage's own pods."""
    egress_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 80, 8333, 9000, 4317, 4318, 8000]
    """TCP ports that the pods may reach anywhere: S3, collector, reward service, hub."""
    ingress_from: Objects = []
    """Peers (namespaceSelector, podSelector, ipBlock) that may reach the service port; empty: the namespace."""


class StageValues(ChartSettings):
    """What all charts share."""

    run: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the run in the store; empty takes the release's name."""
    stage: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the stage in the run; empty takes the kind."""
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of everything that decides the outputs; submit sets it, empty is computed in the pod."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Every random choice comes from it."""
    git_revision: str = ""
    """Revision of the code that submitted, for the artifacts' manifests."""
    store: StoreValues = StoreValues()
    """Where inputs come from and outputs go."""
    image: ImageValues = ImageValues()
    """The stage's image."""
    resources: ResourceValues = ResourceValues()
    """CPU and memory of a pod."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs of a pod; 0 runs on the CPU."""
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name that the device plugin advertises."""
    shared_memory: Quantity = "8Gi"
    """Most that /dev/shm may hold; it counts as memory of the pod."""
    scratch: ScratchValues = ScratchValues()
    """The working folder."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: Objects = []
    """Taints that the pods bear."""
    affinity: dict[str, Any] = {}
    """Kubernetes affinity."""
    priority_class_name: Name = ""
    """Existing PriorityClass."""
    runtime_class_name: Name = ""
    """Existing RuntimeClass, such as nvidia."""
    service_account_name: Name = ""
    """Existing ServiceAccount; empty makes one without any rights. Its token is not mounted."""
    service_account_annotations: dict[str, str] = {}
    """Annotations of the made ServiceAccount, such as a cloud identity for the bucket."""
    pod_labels: Labels = {}
    """Further labels of pods."""
    pod_annotations: dict[str, str] = {}
    """Further annotations of pods."""
    env: Objects = []
    """Further environment variables (Kubernetes EnvVar)."""
    env_from: Objects = []
    """Further sources of environment variables (Kubernetes EnvFromSource)."""
    volumes: Objects = []
    """Further volumes."""
    volume_mounts: Objects = []
    """Further mounts of the stage's container."""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    """Numeric user and group of every container."""
    telemetry: TelemetryValues = TelemetryValues()
    """Traces and logs."""
    network_policy: NetworkPolicyValues = NetworkPolicyValues()
    """Who may talk to whom."""
