"""Values of the chart ``reward``, which serves a verifier as an autoscaled Deployment (the reward service)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Labels, Name, ResourceValues, StageValues
from editr1.config.chart_training import Reference
from editr1.config.serve import ServeConfig


class KedaValues(ChartSettings):
    """Autoscaling with KEDA (2.19 or newer).

    The number of replicas follows the number of items (edits to score) that are queued or running, and the number of
    GRPO pods.
    """

    in_flight: Annotated[int, Field(ge=1)] = 64
    """Target number of queued and running items (edits to score) per replica."""
    jobs_per_replica: Annotated[int, Field(ge=1)] = 2
    """Number of GRPO pods that share one replica. The replicas that existing GRPO pods need keep running even when they
    are idle."""
    job_selector: Labels = {"editr1.dev/kind": "grpo"}
    """Labels by which KEDA recognizes GRPO pods."""
    polling_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """Interval at which KEDA reads the load and counts the GRPO pods, in seconds."""
    namespace: Name = "keda"
    """Namespace in which KEDA runs. The NetworkPolicy allows access from it."""
    fallback_replicas: Annotated[int, Field(ge=1)] = 1
    """Minimum number of replicas while KEDA cannot read the load."""


class HpaValues(ChartSettings):
    """Autoscaling with a HorizontalPodAutoscaler."""

    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] = 70
    """Target CPU utilization in percent of the CPU request. It needs metrics-server. CPU utilization does not reflect
    the load of a GPU, so set ``podsMetric`` if the pods use GPUs."""
    pods_metric: str = ""
    """Custom metric of the pods that replaces CPU utilization, such as editr1_reward_in_flight. It needs a metrics
    adapter."""
    pods_metric_target: str = "64"
    """Target average of ``podsMetric`` per replica."""


class AutoscalingValues(ChartSettings):
    """How the number of replicas is determined."""

    mode: Literal["keda", "hpa", "none"] = "none"
    """keda: scale on load and GRPO pods; hpa: scale on CPU or a custom metric; none: always ``replicas``."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Minimum number of replicas. With 0 (keda only), the service has no replica until a GRPO pod starts."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 8
    """Maximum number of replicas."""
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 600
    """Time for which the load must have been low before a replica is removed, in seconds."""
    scale_down_period_seconds: Annotated[int, Field(ge=1, le=1800)] = 180
    """Length of the period in which at most one replica is removed, in seconds."""
    keda: KedaValues = KedaValues()
    """Settings of mode keda."""
    hpa: HpaValues = HpaValues()
    """Settings of mode hpa."""


class VllmValues(ChartSettings):
    """A vLLM sidecar container that generates the traces of the verifier.

    It uses the GPUs of the pod, and only the reward server in the same pod can reach it.
    """

    enabled: bool = False
    """Run the vLLM sidecar, and set the ``engine`` of the reward server to openai."""
    image: str = "docker.io/vllm/vllm-openai:v0.11.0"
    """Container image of vLLM, with tag or digest."""
    command: list[str] = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    """Command that starts vLLM's OpenAI-compatible server."""
    args: list[str] = ["--max-model-len", "8192", "--limit-mm-per-prompt", '{"image":2,"video":0}']
    """Additional arguments of vLLM. The chart sets the model, the served model name, the host and the port."""
    env: list[dict[str, Any]] = []
    """Additional environment variables of the vLLM container."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "4", "memory": "32Gi"})
    """CPU and memory of the vLLM container."""


class MonitoringValues(ChartSettings):
    """Monitoring with Prometheus and Grafana; each object requires the corresponding operator in the cluster."""

    pod_monitor: bool = False
    """Create a PodMonitor (prometheus-operator) that scrapes /metrics."""
    rules: bool = False
    """Create a PrometheusRule with three alerts: no replica is ready, scoring fails, or the queue is long."""
    dashboard: bool = False
    """Create a ConfigMap with the Grafana dashboard. It has the label that Grafana's sidecar looks for."""
    labels: Labels = {}
    """Labels of the PodMonitor, the PrometheusRule and the ConfigMap, for operators that select objects by label."""


class RewardValues(StageValues):
    """Values of charts/reward."""

    inputs: dict[str, Reference] = {}
    """Inputs of the stage, as a mapping from input name to reference. The input ``model`` is the verifier to serve."""
    config: ServeConfig = ServeConfig(host="0.0.0.0")
    """Settings of the reward server."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of replicas in autoscaling mode none."""
    autoscaling: AutoscalingValues = AutoscalingValues()
    """Autoscaling of the service."""
    vllm: VllmValues = VllmValues()
    """vLLM sidecar."""
    startup_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] = 1800
    """Time limit for loading the weights and scoring a test edit (the golden sample) at startup, in seconds."""
    pre_stop_seconds: Annotated[int, Field(ge=0, le=120)] = 15
    """Time for which a replica still accepts requests after its removal from the Service, in seconds. Clients need this
    time to notice the removal."""
    max_unavailable: Annotated[int, Field(ge=1)] = 1
    """Maximum number of replicas that a node drain may evict at the same time (PodDisruptionBudget)."""
    monitoring: MonitoringValues = MonitoringValues()
    """Metrics, alerts and dashboard."""
