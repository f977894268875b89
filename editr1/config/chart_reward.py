"""Values of the reward chart, which serves a verifier as an autoscaled Deployment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Labels, Name, ResourceValues, StageValues
from editr1.config.chart_training import Reference
from editr1.config.serve import ServeConfig


class KedaValues(ChartSettings):
    """Scaling with KEDA (2.19 or newer), on the number of items in flight over all replicas and on the number of GRPO pods."""

    in_flight: Annotated[int, Field(ge=1)] = 64
    """Target number of queued and running items per replica."""
    jobs_per_replica: Annotated[int, Field(ge=1)] = 2
    """Number of GRPO pods per replica. Replicas for existing GRPO pods keep running even when they are idle."""
    job_selector: Labels = {"editr1.dev/kind": "grpo"}
    """Labels of the pods that count as GRPO pods."""
    polling_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """Interval at which KEDA reads the triggers, in seconds."""
    namespace: Name = "keda"
    """Namespace of KEDA, from which the NetworkPolicy allows access."""
    fallback_replicas: Annotated[int, Field(ge=1)] = 1
    """Minimum number of replicas while the load cannot be read."""


class HpaValues(ChartSettings):
    """Scaling with a HorizontalPodAutoscaler."""

    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] = 70
    """Target CPU utilization in percent of the request (needs metrics-server). The CPU does not reflect the load of
    a GPU; prefer ``podsMetric``."""
    pods_metric: str = ""
    """Custom metric of the pods to scale on instead of CPU, such as editr1_reward_in_flight (needs a metrics adapter)."""
    pods_metric_target: str = "64"
    """Target average of that metric per replica."""


class AutoscalingValues(ChartSettings):
    """Number of replicas."""

    mode: Literal["keda", "hpa", "none"] = "none"
    """keda: scale on load and GRPO pods; hpa: scale on CPU or a custom metric; none: always ``replicas``."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Minimum number of replicas. With 0 (keda only), the service has no replica until a GRPO pod starts."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 8
    """Maximum number of replicas."""
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 600
    """How long the load must have been low before a replica is removed, in seconds."""
    scale_down_period_seconds: Annotated[int, Field(ge=1, le=1800)] = 180
    """Length of the period in which at most one replica is removed, in seconds."""
    keda: KedaValues = KedaValues()
    """Settings of mode keda."""
    hpa: HpaValues = HpaValues()
    """Settings of mode hpa."""


class VllmValues(ChartSettings):
    """A vLLM sidecar of the reward server, reachable on the pod's loopback address only. It uses the GPUs of the pod."""

    enabled: bool = False
    """Run vLLM, and set the engine of the reward server to openai."""
    image: str = "docker.io/vllm/vllm-openai:v0.11.0"
    """Image of vLLM, with tag or digest."""
    command: list[str] = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    """Command that starts its OpenAI-compatible server."""
    args: list[str] = ["--max-model-len", "8192", "--limit-mm-per-prompt", '{"image":2,"video":0}']
    """Additional arguments. The chart sets model, served model name, host and port."""
    env: list[dict[str, Any]] = []
    """Additional environment variables of the container."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "4", "memory": "32Gi"})
    """CPU and memory of the container."""


class MonitoringValues(ChartSettings):
    """Monitoring with Prometheus and Grafana; each object requires the corresponding operator in the cluster."""

    pod_monitor: bool = False
    """Create a PodMonitor (prometheus-operator) that scrapes /metrics."""
    rules: bool = False
    """Create a PrometheusRule with alerts for no ready replica, failing scores and a long queue."""
    dashboard: bool = False
    """Create a ConfigMap with the Grafana dashboard, with the label that Grafana's sidecar selects."""
    labels: Labels = {}
    """Labels of the three objects, for operators that select by label."""


class RewardValues(StageValues):
    """Values of charts/reward."""

    inputs: dict[str, Reference] = {}
    """References of inputs by name. ``model`` is the verifier to serve."""
    config: ServeConfig = ServeConfig(host="0.0.0.0")
    """Settings of the reward server."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of replicas in autoscaling mode none."""
    autoscaling: AutoscalingValues = AutoscalingValues()
    """Autoscaling."""
    vllm: VllmValues = VllmValues()
    """vLLM sidecar."""
    startup_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] = 1800
    """Time limit for loading the weights and scoring the golden sample, in seconds."""
    pre_stop_seconds: Annotated[int, Field(ge=0, le=120)] = 15
    """Delay between the removal of a replica from the Service and the start of its drain, in seconds, so that clients
    notice the removal."""
    max_unavailable: Annotated[int, Field(ge=1)] = 1
    """Maximum number of replicas that a node drain may evict at once (PodDisruptionBudget)."""
    monitoring: MonitoringValues = MonitoringValues()
    """Metrics, alerts and dashboard."""
