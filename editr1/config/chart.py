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
"""Name of a Kubernetes object. An empty string means that there is none."""
Labels = dict[str, str]
Objects = list[dict[str, Any]]


class ChartSettings(Settings):
    """Base class of a section of chart values. Keys are camelCase in values files, and unknown keys are rejected."""

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
    """The artifact store: a bucket of an S3-compatible server.

    Access keys come from an existing Secret, never from values.
    """

    url: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]*(/.*)?)?$")] = ""
    """Address of the store: s3://bucket or s3://bucket/prefix. Required."""
    endpoint: Annotated[str, Field(pattern=r"^((https?://)?[A-Za-z0-9.\-\[\]:]+)?$")] = ""
    """Address of the S3 server as seen from pods, such as http://s3.editr1.svc:8333. If empty, AWS is used."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    """S3 region; if empty, it is requested from the server."""
    secure: bool = True
    """Use HTTPS if ``endpoint`` does not start with http:// or https://."""
    part_bytes: Annotated[int, Field(ge=5 << 20, le=5 << 30)] = 16 << 20
    """Part size of an S3 multipart upload, in bytes. Smaller files are uploaded in one request."""
    transfers: Annotated[int, Field(ge=1, le=64)] = 4
    """Maximum number of concurrent file transfers."""
    secret_name: Name = "editr1-s3"
    """Name of an existing Secret with the access keys. If empty, the pod's own identity is used, such as a cloud
    workload identity."""
    access_key: str = "access-key"
    """Entry of the Secret ``secretName`` that contains the S3 access key."""
    secret_key: str = "secret-key"
    """Entry of the Secret ``secretName`` that contains the S3 secret key."""
    ca_config_map: Name = ""
    """Name of an existing ConfigMap with a PEM bundle of certificate authorities. The pods trust them when they connect
    to ``endpoint``."""
    ca_key: str = "ca.crt"
    """Entry of the ConfigMap ``caConfigMap`` that contains the bundle."""


class ResourceValues(ChartSettings):
    """CPU and memory of a container, as Kubernetes resource requests and limits. GPUs are requested with ``gpus``."""

    requests: dict[str, Any] = {"cpu": "1", "memory": "4Gi"}
    """Resources that are reserved for the container, such as cpu and memory."""
    limits: dict[str, Any] = {}
    """Maximum resources that the container may use."""


class ScratchValues(ChartSettings):
    """The working directory /work.

    It holds downloads, caches, and checkpoints that are not yet in the artifact store.
    """

    size: Quantity = "50Gi"
    """Size limit of the emptyDir volume that is mounted at /work."""
    claim: Name = ""
    """Name of an existing PersistentVolumeClaim to mount instead of an emptyDir. Downloads then remain after the pod is
    deleted."""


class TelemetryValues(ChartSettings):
    """Export of spans and metrics with OpenTelemetry, and the log format.

    Spans are also written to the artifact store. A stage never waits for a collector.
    """

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for spans, such as http://jaeger.observability:4318. If empty, spans are not exported."""
    metrics_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint for a stage's progress and metrics, such as http://collector:4318/v1/metrics. If empty, they
    are not exported. The reward service does not use it, because Prometheus scrapes its metrics."""
    traceparent: Annotated[str, Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")] = ""
    """W3C traceparent of the span under which the stage's spans appear. ``editr1 submit`` sets it."""
    publish_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Interval at which each pod writes progress, logs and spans to the artifact store, in seconds."""
    json_logs: bool = False
    """Write each log line as a JSON object that includes the OpenTelemetry trace ID."""


class NetworkPolicyValues(ChartSettings):
    """A NetworkPolicy for the stage's pods."""

    enabled: bool = False
    """Create the NetworkPolicy. It allows egress to DNS, to ``egressPorts`` and to the stage's own pods."""
    egress_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 80, 8333, 9000, 4317, 4318, 8000]
    """TCP ports that the pods may reach on any address. Include the ports of the artifact store, the trace collector,
    the reward service and the Hugging Face Hub."""
    ingress_from: Objects = []
    """NetworkPolicy peers (namespaceSelector, podSelector, ipBlock) that may reach the service port. If empty, every
    pod of the namespace may reach it."""


class StageValues(ChartSettings):
    """Values that every stage chart accepts."""

    run: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the run in the artifact store; defaults to the release name."""
    stage: Annotated[str, Field(max_length=45, pattern=NAME)] = ""
    """Name of the stage in the run; defaults to the kind of the stage, such as grpo."""
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the settings, inputs, seed and reward model, which together determine the stage's outputs. ``editr1
    submit`` sets it. If empty, the pod computes it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random choices of the stage."""
    git_revision: str = ""
    """Git revision of the code that submitted the stage. It is recorded in the manifests of the output artifacts."""
    store: StoreValues = StoreValues()
    """Artifact store from which inputs are read and to which outputs are written."""
    image: ImageValues = ImageValues()
    """Container image of the stage."""
    resources: ResourceValues = ResourceValues()
    """CPU and memory per pod."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per pod; 0 runs on the CPU."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU resource that the device plugin advertises, such as nvidia.com/gpu."""
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
    """Name of an existing PriorityClass."""
    runtime_class_name: Name = ""
    """Name of an existing RuntimeClass, such as nvidia."""
    service_account_name: Name = ""
    """Name of an existing ServiceAccount. If empty, the chart creates one that has no permissions and whose token is
    not mounted."""
    service_account_annotations: dict[str, str] = {}
    """Annotations of the ServiceAccount that the chart creates, such as a cloud identity with access to the bucket."""
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
    """Numeric ID that is both the user ID and the group ID of every container."""
    telemetry: TelemetryValues = TelemetryValues()
    """Export of spans and metrics, and the log format."""
    network_policy: NetworkPolicyValues = NetworkPolicyValues()
    """Network access of the pods."""
