"""Values that every stage chart accepts.

``charts/generate.py`` writes each chart's ``values.yaml``, ``values.schema.json`` and README from these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from editr1.config.base import Settings
from editr1.config.names import OptionalName

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity, such as 500m or 16Gi."""
Name = Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")]
"""Name of an existing Kubernetes object, or an empty string if no object is used."""
Labels = dict[str, str]


def _not_reserved(labels: dict[str, str]) -> dict[str, str]:
    if used := [name for name in labels if name.startswith(_RESERVED)]:
        raise ValueError(f"{used[0]}: the charts set labels with this prefix; choose another name")
    return labels


_RESERVED = ("app.kubernetes.io/", "helm.sh/", "editr1.dev/", "kueue.x-k8s.io/")
OwnLabels = Annotated[dict[str, str], AfterValidator(_not_reserved)]
"""Labels whose names the charts do not use themselves."""
Objects = list[dict[str, Any]]


class ChartSettings(Settings):
    """Base class of a section of chart values. Keys are camelCase in values files, and unknown keys are rejected."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ImageValues(ChartSettings):
    """The container image."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*$")] = "editr1"
    """Image name without tag or digest."""
    tag: Annotated[str, Field(pattern=r"^([\w][\w.-]*)?$")] = ""
    """Image tag. Defaults to the appVersion of the chart. It is ignored if ``digest`` is set."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Image digest, as sha256:<64 hex digits>. ``editr1 submit`` sets it to the digest that it records for the run."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Pull policy of the image (Kubernetes imagePullPolicy)."""
    pull_secrets: list[Name] = []
    """Names of existing Secrets with credentials for the image registry (Kubernetes imagePullSecrets)."""


class StoreValues(ChartSettings):
    """The artifact store: a bucket of an S3-compatible server.

    Access keys come from an existing Secret, never from chart values.
    """

    url: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]*(/.*)?)?$")] = ""
    """Address of the store: s3://bucket or s3://bucket/prefix. Required."""
    endpoint: Annotated[str, Field(pattern=r"^((https?://)?[A-Za-z0-9.\-\[\]:]+)?$")] = ""
    """Address of the S3 server as seen from pods, such as http://s3.editr1.svc:8333. If empty, the endpoint of AWS S3
    is used."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]*$")] = ""
    """S3 region of the bucket. If empty, the region is requested from the S3 server."""
    secure: bool = True
    """Use HTTPS if ``endpoint`` does not specify http:// or https://."""
    part_bytes: Annotated[int, Field(ge=5 << 20, le=5 << 30)] = 16 << 20
    """Part size of an S3 multipart upload, in bytes. Files smaller than one part are uploaded in one request."""
    transfers: Annotated[int, Field(ge=1, le=64)] = 4
    """Maximum number of concurrent file transfers."""
    outage_seconds: Annotated[int, Field(ge=0)] = 1800
    """Time in seconds for which an outage of the store is tolerated. During an outage, training continues, and reads
    and commits wait."""
    secret_name: Name = "editr1-s3"
    """Name of an existing Secret with the S3 access key and secret key. If empty, pods authenticate with their own
    identity, such as a cloud workload identity."""
    access_key: str = "access-key"
    """Name of the entry that contains the S3 access key, in the Secret named by ``secretName``."""
    secret_key: str = "secret-key"
    """Name of the entry that contains the S3 secret key, in the Secret named by ``secretName``."""
    ca_config_map: Name = ""
    """Name of an existing ConfigMap with a PEM bundle of certificate authorities. The pods trust these authorities when
    they connect to ``endpoint``."""
    ca_key: str = "ca.crt"
    """Name of the entry that contains the PEM bundle, in the ConfigMap named by ``caConfigMap``."""


class ResourceValues(ChartSettings):
    """CPU and memory of a container, as Kubernetes resource requests and limits. GPUs are requested with ``gpus``."""

    requests: dict[str, Any] = {"cpu": "1", "memory": "4Gi"}
    """Resources that are reserved for the container, such as cpu and memory."""
    limits: dict[str, Any] = {}
    """Maximum resources that the container may use."""


class ScratchValues(ChartSettings):
    """The working directory /work.

    It holds downloads, caches, and new checkpoints before they are uploaded to the artifact store.
    """

    size: Quantity = "50Gi"
    """Size limit of the emptyDir volume that is mounted at /work."""
    claim: Name = ""
    """Name of an existing PersistentVolumeClaim that is mounted at /work instead of the emptyDir volume. Downloads then
    remain after the pod is deleted."""


class TelemetryValues(ChartSettings):
    """Export of spans and metrics with OpenTelemetry, and the log format.

    Spans are also written to the artifact store. A stage never waits for the OpenTelemetry collector.
    """

    endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint to which spans are sent, such as http://jaeger.observability:4318. If empty, spans are not
    exported."""
    metrics_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """OTLP/HTTP endpoint to which a stage sends its progress and metrics, such as http://collector:4318/v1/metrics. If
    empty, they are not exported. The reward service does not use this endpoint, because Prometheus scrapes its
    metrics."""
    traceparent: Annotated[str, Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")] = ""
    """W3C traceparent of the parent span of the stage's spans. ``editr1 submit`` sets it."""
    publish_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """Interval, in seconds, at which each pod writes progress, logs and spans to the artifact store."""
    json_logs: bool = False
    """Write each log line as a JSON object that includes the OpenTelemetry trace ID."""


class PodValues(ChartSettings):
    """Values about pods and the metadata of objects, which every chart accepts."""

    common_labels: OwnLabels = {}
    """Additional labels for every object of the release, and for its pods. Policies of a cluster can require them."""
    common_annotations: dict[str, str] = {}
    """Additional annotations for every object of the release, except the pods that they create."""
    node_selector: Labels = {}
    """Labels that a node must have to run the pods (Kubernetes nodeSelector)."""
    tolerations: Objects = []
    """Kubernetes tolerations of the pods."""
    affinity: dict[str, Any] = {}
    """Kubernetes affinity of the pods."""
    priority_class_name: Name = ""
    """Name of an existing PriorityClass for the pods."""
    scheduler_name: Name = ""
    """Name of the scheduler that places the pods, such as volcano. If empty, the scheduler of Kubernetes places them."""
    runtime_class_name: Name = ""
    """Name of an existing RuntimeClass for the pods, such as nvidia."""
    service_account_name: Name = ""
    """Name of an existing ServiceAccount for the pods. If empty, the chart creates a ServiceAccount."""
    service_account_annotations: dict[str, str] = {}
    """Annotations of the ServiceAccount that the chart creates. They can assign a cloud identity that has access to the
    bucket."""
    pod_labels: OwnLabels = {}
    """Additional labels for the pods."""
    pod_annotations: dict[str, str] = {}
    """Additional annotations for the pods."""
    env: Objects = []
    """Additional environment variables for the main container, as a list of Kubernetes EnvVar objects."""
    env_from: Objects = []
    """Additional sources of environment variables for the main container, as a list of Kubernetes EnvFromSource objects."""
    volumes: Objects = []
    """Additional volumes for the pods, as a list of Kubernetes Volume objects."""
    volume_mounts: Objects = []
    """Additional volume mounts for the main container, as a list of Kubernetes VolumeMount objects."""
    run_as_user: Annotated[int, Field(ge=1)] | None = 10001
    """Numeric ID that every container uses both as its user ID and as its group ID. Null leaves the IDs to the cluster, as
    OpenShift requires."""


class NetworkPolicyValues(ChartSettings):
    """A NetworkPolicy for the stage's pods."""

    enabled: bool = False
    """Create the NetworkPolicy. It allows egress to the ports in ``dnsPorts`` and ``egressPorts``, to the stage's own pods,
    and what ``extraEgress`` allows."""
    egress_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 80, 8333, 9000, 4317, 4318, 8000]
    """TCP ports to which the pods may connect, at any address. Include the ports of the artifact store, the trace
    collector, the reward service and the Hugging Face Hub."""
    dns_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [53]
    """Ports on which the cluster's DNS pods listen, for UDP and TCP. Those of OpenShift listen on 5353."""
    extra_egress: Objects = []
    """Additional egress rules of the NetworkPolicy, as a list of Kubernetes NetworkPolicyEgressRule objects."""
    ingress_from: Objects = []
    """NetworkPolicy peers (namespaceSelector, podSelector, ipBlock) that may connect to the pods of a reward service.
    If empty, every pod of the namespace may connect to them. Other stages do not use this value."""


class StageValues(PodValues):
    """Values that every stage chart accepts."""

    run: OptionalName = ""
    """Name of the run in the artifact store. Defaults to the name of the Helm release."""
    stage: OptionalName = ""
    """Name of the stage in the run. Defaults to the kind of the stage, such as grpo."""
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Key of the stage: a digest of its settings, inputs, seed and reward model, which together determine its outputs.
    ``editr1 submit`` sets the key. If it is empty, the pod computes it."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Random seed for the stage."""
    heartbeat_timeout_seconds: Annotated[float, Field(ge=10, le=86400)] = 300.0
    """Time, in seconds, after which a process of the stage that is stopped or hangs is killed. The stage is then tried
    again."""
    git_revision: str = ""
    """Git revision of the code with which the stage was submitted. It is recorded in the manifests of the output
    artifacts."""
    store: StoreValues = StoreValues()
    """Artifact store from which inputs are read and to which outputs are written."""
    image: ImageValues = ImageValues()
    """Container image of the stage."""
    resources: ResourceValues = ResourceValues()
    """CPU and memory per pod."""
    helper_resources: ResourceValues = ResourceValues(requests={"cpu": "50m", "memory": "512Mi"})
    """CPU and memory of the helper containers: the pod of ``helm test``, and the init container that downloads the model for vLLM."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    """Number of GPUs per pod. With 0, the stage runs on the CPU."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU resource that the device plugin advertises, such as nvidia.com/gpu."""
    shared_memory: Quantity = "8Gi"
    """Size limit of /dev/shm. Files in it count towards the memory limit of the pod."""
    scratch: ScratchValues = ScratchValues()
    """Working directory of each pod."""
    telemetry: TelemetryValues = TelemetryValues()
    """Export of spans and metrics, and the log format."""
    network_policy: NetworkPolicyValues = NetworkPolicyValues()
    """NetworkPolicy that restricts the network access of the pods."""
