"""Values of the reward chart: the verifier as a Deployment that scales with its load."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Labels, Name, ResourceValues, StageValues
from editr1.config.chart_training import Reference
from editr1.config.serve import ServeConfig


class KedaValues(ChartSettings):
    """KEDA scales on the items in flight over all replicas (needs KEDA 2.19 or newer), and wakes for GRPO pods."""

    in_flight: Annotated[int, Field(ge=1)] = 64
    """Items queued or running that one replica should hold."""
    jobs_per_replica: Annotated[int, Field(ge=1)] = 2
    """GRPO pods for which one replica is kept, however idle."""
    job_selector: Labels = {"editr1.dev/kind": "grpo"}
    """Labels of the pods that count as GRPO pods."""
    polling_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """How often KEDA looks."""
    namespace: Name = "keda"
    """Namespace of KEDA, which a NetworkPolicy must let in."""
    fallback_replicas: Annotated[int, Field(ge=1)] = 1
    """Replicas to hold while the load cannot be read, where fewer run."""


class HpaValues(ChartSettings):
    """A plain HorizontalPodAutoscaler."""

    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] = 70
    """Target in per cent of the CPU request (needs metrics-server). Says little about a GPU: prefer ``podsMetric``."""
    pods_metric: str = ""
    """Custom metric of the pods to scale on in place of CPU, such as editr1_reward_in_flight (needs an adapter)."""
    pods_metric_target: str = "64"
    """Average of that metric a replica should have."""


class AutoscalingValues(ChartSettings):
    """How many replicas run."""

    mode: Literal["keda", "hpa", "none"] = "none"
    """keda: on load and GRPO pods; hpa: on CPU or a custom metric; none: ``replicas``."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Fewest replicas; 0 (keda only) sleeps until a GRPO pod starts."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most replicas."""
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 600
    """The load must have been low for this long before a replica goes."""
    scale_down_period_seconds: Annotated[int, Field(ge=1, le=1800)] = 180
    """At most one replica goes in this time."""
    keda: KedaValues = KedaValues()
    """Used in mode keda."""
    hpa: HpaValues = HpaValues()
    """Used in mode hpa."""


class VllmValues(ChartSettings):
    """vLLM beside the reward server, on the pod's loopback. It takes the GPUs; the reward server then needs none."""

    enabled: bool = False
    """Run it. The reward server's engine is then openai."""
    image: str = "docker.io/vllm/vllm-openai:v0.11.0"
    """vLLM's image, by tag or digest."""
    command: list[str] = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    """What starts its OpenAI-compatible server."""
    args: list[str] = ["--max-model-len", "8192", "--limit-mm-per-prompt", '{"image":2,"video":0}']
    """Further arguments; model, served name, address and port are set by the chart."""
    env: list[dict[str, Any]] = []
    """Further environment variables of its container."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "4", "memory": "32Gi"})
    """CPU and memory of its container."""


class MonitoringValues(ChartSettings):
    """Objects for Prometheus and Grafana; each needs its operator in the cluster."""

    pod_monitor: bool = False
    """A PodMonitor (prometheus-operator) that scrapes /metrics."""
    rules: bool = False
    """A PrometheusRule with alerts: no replica ready, scores failing, queue long."""
    dashboard: bool = False
    """A ConfigMap with the Grafana dashboard, labelled for Grafana's sidecar."""
    labels: Labels = {}
    """Labels of the three, where your operator selects by labels."""


class RewardValues(StageValues):
    """Values of charts/reward."""

    inputs: dict[str, Reference] = {}
    """``model``: the verifier to serve."""
    config: ServeConfig = ServeConfig(host="0.0.0.0")
    """Settings of the server."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas where ``autoscaling.mode`` is none."""
    autoscaling: AutoscalingValues = AutoscalingValues()
    """Scaling with the load."""
    vllm: VllmValues = VllmValues()
    """The engine beside the server."""
    startup_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] = 1800
    """Longest time to load the weights and score the golden sample."""
    pre_stop_seconds: Annotated[int, Field(ge=0, le=120)] = 15
    """Time for clients to learn that a replica leaves, before it drains."""
    max_unavailable: Annotated[int, Field(ge=1)] = 1
    """Replicas that a node drain may take at once (PodDisruptionBudget)."""
    monitoring: MonitoringValues = MonitoringValues()
    """Metrics, alerts, dashboard."""
