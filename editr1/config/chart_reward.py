"""Values of the chart ``reward``, which serves a verifier as an autoscaled Deployment (the reward service)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Labels, ResourceValues, StageValues
from editr1.config.chart_training import Reference
from editr1.config.names import Namespace
from editr1.config.serve import ServeConfig


class KedaValues(ChartSettings):
    """Autoscaling with KEDA (2.19 or newer).

    KEDA computes one number of replicas from the items (edits to score) that are queued or running, and another from
    the number of GRPO pods. The larger number applies.
    """

    in_flight: Annotated[int, Field(ge=1)] = 64
    """Target number of queued and running items (edits to score) per replica."""
    jobs_per_replica: Annotated[int, Field(ge=1)] = 2
    """Number of GRPO pods that share one replica. KEDA keeps enough replicas for the existing GRPO pods, even if these
    replicas are idle."""
    job_selector: Labels = {"editr1.dev/kind": "grpo"}
    """Labels of the GRPO pods that KEDA counts."""
    polling_interval_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """Interval, in seconds, at which KEDA reads the load and counts the GRPO pods."""
    namespace: Namespace = "keda"
    """Namespace in which KEDA runs. The NetworkPolicy of the reward service allows connections from this namespace."""
    fallback_replicas: Annotated[int, Field(ge=1)] = 1
    """Minimum number of replicas while KEDA cannot read the load."""


class HpaValues(ChartSettings):
    """Autoscaling with a HorizontalPodAutoscaler."""

    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] = 70
    """Target CPU utilization of the pods, in percent of their CPU request. Measuring it requires metrics-server in the
    cluster. CPU utilization does not reflect the load of a GPU, so set ``podsMetric`` if the pods use GPUs."""
    pods_metric: str = ""
    """Custom metric of the pods to use instead of CPU utilization, such as editr1_reward_in_flight. It requires a
    metrics adapter in the cluster. If empty, CPU utilization is used."""
    pods_metric_target: str = "64"
    """Target average of ``podsMetric`` per replica."""


class AutoscalingValues(ChartSettings):
    """Settings that determine the number of replicas."""

    mode: Literal["keda", "hpa", "none"] = "none"
    """Method that sets the number of replicas. "keda": from the number of queued and running items (edits to score) and
    the number of GRPO pods. "hpa": from CPU utilization or a custom metric. "none": always ``replicas``."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Minimum number of replicas. Only the mode "keda" allows 0. The service then has no replica until a GRPO pod
    starts."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 8
    """Maximum number of replicas."""
    scale_down_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 600
    """Time, in seconds, for which the load must have been low before a replica is removed."""
    scale_down_period_seconds: Annotated[int, Field(ge=1, le=1800)] = 180
    """Length, in seconds, of the period in which at most one replica is removed."""
    keda: KedaValues = KedaValues()
    """Settings of the autoscaling mode "keda"."""
    hpa: HpaValues = HpaValues()
    """Settings of the autoscaling mode "hpa"."""


class VllmValues(ChartSettings):
    """A vLLM sidecar container that generates the traces of the verifier.

    It uses the GPUs of the pod, and only the reward server in the same pod can reach it.
    """

    enabled: bool = False
    """Run the vLLM sidecar container. The chart then sets the ``engine`` of the reward server to "openai"."""
    image: str = "docker.io/vllm/vllm-openai:v0.11.0"
    """Container image of vLLM, with tag or digest."""
    command: list[str] = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    """Command that starts vLLM's OpenAI-compatible server."""
    args: list[str] = ["--max-model-len", "8192", "--limit-mm-per-prompt", '{"image":2,"video":0}']
    """Additional arguments for vLLM. The chart sets the model, the served model name, the host, the port, and
    ``--generation-config=vllm``, so that sampling does not depend on defaults in the model folder."""
    env: list[dict[str, Any]] = []
    """Additional environment variables for the vLLM container, as a list of Kubernetes EnvVar objects."""
    resources: ResourceValues = ResourceValues(requests={"cpu": "4", "memory": "32Gi"})
    """CPU and memory of the vLLM container."""


class MonitoringValues(ChartSettings):
    """Monitoring with Prometheus and Grafana.

    A PodMonitor and a PrometheusRule require prometheus-operator in the cluster. The dashboard requires Grafana's
    sidecar container.
    """

    pod_monitor: bool = False
    """Create a PodMonitor (a resource of prometheus-operator), so that Prometheus scrapes /metrics."""
    rules: bool = False
    """Create a PrometheusRule with three alerts: no replica is ready, more than 5 % of items (edits to score) fail, and
    the 90th percentile of the time in the queue exceeds 30 s."""
    dashboard: bool = False
    """Create a ConfigMap with the Grafana dashboard. Grafana's sidecar container finds the ConfigMap by its label."""
    labels: Labels = {}
    """Labels of the PodMonitor, the PrometheusRule and the ConfigMap. They are needed if an operator selects these
    objects by label."""


class RewardValues(StageValues):
    """Helm values for the ``reward`` chart."""

    inputs: dict[str, Reference] = {}
    """Inputs of the stage, as a mapping from input name to reference. The input ``model`` is the verifier to serve."""
    config: ServeConfig = ServeConfig(host="*")
    """Settings of the reward server."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of replicas if the autoscaling mode is "none"."""
    autoscaling: AutoscalingValues = AutoscalingValues()
    """Autoscaling of the service."""
    vllm: VllmValues = VllmValues()
    """Sidecar container that runs vLLM."""
    startup_timeout_seconds: Annotated[int, Field(ge=10, le=7200)] = 1800
    """Maximum time at startup, in seconds, to load the weights and to score a test edit (the golden sample)."""
    pre_stop_seconds: Annotated[int, Field(ge=0, le=120)] = 15
    """Time, in seconds, for which a replica still accepts requests after its removal from the Service. Clients need
    this time to notice the removal."""
    max_unavailable: Annotated[int, Field(ge=1)] = 1
    """Maximum number of replicas that a node drain may evict at the same time (PodDisruptionBudget)."""
    monitoring: MonitoringValues = MonitoringValues()
    """Monitoring of the service: metrics, alerts and dashboard."""
