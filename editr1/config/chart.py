"""Values that every stage chart accepts.

``charts/generate.py`` writes each chart's ``values.yaml``, ``values.schema.json`` and README from these models.
"""

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
    """A section of chart values: keys are camelCase in files, and unknown keys are rejected."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ImageValues(ChartSettings):
    """The container image."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*$")] = "editr1"
    """Image name without tag or digest."""
    tag: Annotated[str, Field(pattern=r"^([\w][\w.-]*)?$")] = ""
    """Image tag; defaults to the appVersion of the chart. Ignored if a digest is set."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Image digest, as sha256:<64 hex digits>. ``editr1 submit`` sets it to the digest that it records for the run."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Kubernetes imagePullPolicy."""
    pull_secrets: list[Name] = []
    """Names of existing image pull secrets."""


class StoreValues(ChartSettings):
    """The artifact store: a bucket of an S3-compatible server. Access keys come from an existing Secret, never from values."""

    url: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]*(/.*)?)?$")] = ""
    """Address of the store: s3://bucket or s3://bucket/prefix. Required."""
    endpoint: Annotated[str, Field(pattern=r"^((https?://)?[A-Za-z0-9.\-\[\]:]+)?$")] = ""
    """Address of the S3 server as seen from pods, such as http://s3.editr1.svc:8333; empty means AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    """S3 region; if empty, it is requested from the server."""
    secure: bool = True
    """Use HTTPS if ``endpoint`` has no scheme."""
    part_bytes: Annotated[int, Field(ge=5 << 20, le=5 << 30)] = 16 << 20
    """Files above this size are uploaded in parts of this size, in bytes."""
    transfers: Annotated[int, Field(ge=1, le=64)] = 4
    """Maximum number of concurrent file transfers."""
    secret_name: Name = "editr1-s3"
    """Existing Secret that holds the access keys. Empty uses the pod's own identity, such as a cloud workload
    identity."""
    access_key: str = "access-key"
    """Key in that Secret under which the access key is stored."""
    secret_key: str = "secret-key"
    """Key in that Secret under which the secret key is stored."""
    ca_config_map: Name = ""
    """Existing ConfigMap with a PEM bundle of certificate authorities to trust for the endpoint."""
    ca_key: str = "ca.crt"
    """Key in that ConfigMap under which the bundle is stored."""


class ResourceValues(ChartSettings):
    """CPU and memory of a container, as Kubernetes resource requests and limits. GPUs are requested with ``gpus``."""

    requests: dict[str, Any] = {"cpu": "1", "memory": "4Gi"}
    """Resource requests."""
    limits: dict[str, Any] = {}
    """Resource limits."""


class ScratchValues(ChartSettings):
    """The working directory /work, which holds downloads, caches and checkpoints that are not committed yet."""

    size: Quantity = "50Gi"
    """Size limit of the pod's emptyDir volume."""
    claim: Name = ""
    """Existing PersistentVolumeClaim to use instead of an emptyDir. Downloads then persist after the pod is deleted."""


class TelemetryValues(ChartSettings):
    """OpenTelemetry export. Spans are also written to the artifact store, and a stage never waits for a collector."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for spans, such as http://jaeger.observability:4318; empty exports none."""
    metrics_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for a stage's progress and metrics, such as http://collector:4318/v1/metrics; empty exports
    none. The reward service is scraped by Prometheus instead."""
    traceparent: Annotated[str, Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")] = ""
    """W3C trace context of the parent of the stage's spans. ``editr1 submit`` sets it."""
    publish_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Interval at which rank 0 writes progress and spans to the artifact store, in seconds."""
    json_logs: bool = False
    """Write log lines as JSON with trace IDs."""


class NetworkPolicyValues(ChartSettings):
    """A NetworkPolicy for the stage's pods."""

    enabled: bool = False
    """Create the NetworkPolicy. It allows egress to DNS, to ``egressPorts`` and to the stage's own pods."""
    egress_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 80, 8333, 9000, 4317, 4318, 8000]
    """TCP ports that the pods may reach on any address: artifact store, collector, reward service, Hugging Face Hub."""
    ingress_from: Objects = []
    """NetworkPolicy peers (namespaceSelector, podSelector, ipBlock) that may reach the service port. Empty allows
    every pod of the namespace."""


class StageValues(ChartSettings):
    """Values that every stage chart accepts."""

    run: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the run in the artifact store; defaults to the release name."""
    stage: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the stage in the run; defaults to the kind."""
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of everything that determines the outputs. ``editr1 submit`` sets it; if it is empty, the pod computes
    it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of every random choice."""
    git_revision: str = ""
    """Git revision of the code that submitted the stage, recorded in the artifacts' manifests."""
    store: StoreValues = StoreValues()
    """Artifact store that inputs are read from and outputs are written to."""
    image: ImageValues = ImageValues()
    """Image of the stage."""
    resources: ResourceValues = ResourceValues()
    """CPU and memory per pod."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per pod; 0 runs on the CPU."""
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name under which the device plugin advertises GPUs."""
    shared_memory: Quantity = "8Gi"
    """Size limit of /dev/shm. It counts towards the pod's memory."""
    scratch: ScratchValues = ScratchValues()
    """Working directory."""
    node_selector: Labels = {}
    """Labels that a node must have."""
    tolerations: Objects = []
    """Tolerations of the pods."""
    affinity: dict[str, Any] = {}
    """Affinity of the pods."""
    priority_class_name: Name = ""
    """Existing PriorityClass."""
    runtime_class_name: Name = ""
    """Existing RuntimeClass, such as nvidia."""
    service_account_name: Name = ""
    """Existing ServiceAccount. Empty creates one without permissions, whose token is not mounted."""
    service_account_annotations: dict[str, str] = {}
    """Annotations of the created ServiceAccount, such as a cloud identity with access to the bucket."""
    pod_labels: Labels = {}
    """Additional labels of the pods."""
    pod_annotations: dict[str, str] = {}
    """Additional annotations of the pods."""
    env: Objects = []
    """Additional environment variables (Kubernetes EnvVar)."""
    env_from: Objects = []
    """Additional sources of environment variables (Kubernetes EnvFromSource)."""
    volumes: Objects = []
    """Additional volumes."""
    volume_mounts: Objects = []
    """Additional volume mounts of the stage's container."""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    """Numeric user and group ID of every container."""
    telemetry: TelemetryValues = TelemetryValues()
    """Traces, metrics and logs."""
    network_policy: NetworkPolicyValues = NetworkPolicyValues()
    """Network access of the pods."""
