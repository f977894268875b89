"""Values of the charts that create a PyTorchJob: curate, sft, gcpo, grpo and evaluate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Name, StageValues
from editr1.config.curate_stage import CurateStageConfig
from editr1.config.evaluate import EvaluateConfig
from editr1.config.gcpo import GcpoConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.names import OptionalName
from editr1.config.sft import SftConfig

Reference = Annotated[
    str,
    Field(
        pattern=r"^(sha256:[0-9a-f]{64}|run:[^/]+/[^/]+/[^/]+|hub:.+|builtin:shapes-(verifier|verifier-small|editor))$"
    ),
]
"""Reference to an input. An artifact in the store is sha256:<digest>, an output of a stage is
run:<run>/<stage>/<output>, a repository on the Hugging Face Hub is hub:<name>@<revision>, and a built-in model is
builtin:<name>."""


class NcclValues(ChartSettings):
    """NCCL settings for communication between nodes."""

    preset: Literal["none", "ethernet", "infiniband", "efa"] = "none"
    """Set of NCCL environment variables. "none": no variables, so that NCCL detects the network. "ethernet": disable
    InfiniBand. "infiniband": use InfiniBand with GPUDirect. "efa": use the AWS Elastic Fabric Adapter."""
    debug: Literal["WARN", "INFO", "TRACE"] = "WARN"
    """Log level of NCCL (environment variable NCCL_DEBUG)."""
    interface: str = ""
    """Network interface that NCCL and Gloo use (environment variables NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME). If
    empty, neither variable is set."""


class SchedulingPolicyValues(ChartSettings):
    """Gang scheduling (the field ``runPolicy.schedulingPolicy`` of a PyTorchJob), for schedulers such as Volcano."""

    min_available: Annotated[int, Field(ge=1, le=512)] | None = None
    """Minimum number of pods that must be able to start together. Null: all pods of the job."""
    queue: str = ""
    """Name of a queue of the scheduler."""
    priority_class: Name = ""
    """Name of an existing PriorityClass for the group of pods."""
    min_resources: dict[str, Any] = {}
    """Minimum resources of the group of pods, such as nvidia.com/gpu."""
    schedule_timeout_seconds: Annotated[int, Field(ge=1)] | None = None
    """Time, in seconds, after which the scheduler gives up. Null: the scheduler's default."""


class TrainingValues(StageValues):
    """Values that every chart with a PyTorchJob accepts."""

    inputs: dict[str, Reference] = {}
    """Inputs of the stage, as a mapping from input name to reference."""
    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Number of pods. Each pod is one node of the torchrun job."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of processes per pod (nproc_per_node of torchrun). With 0, one process per GPU is started."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Maximum number of restarts after a failure. It sets backoffLimit of the PyTorchJob and, if there are several
    nodes, max_restarts of torchrun."""
    restart_policy: Literal["ExitCode", "Never"] = "ExitCode"
    """Restart policy of the pods. "ExitCode": a pod that exits with code 128 or above is restarted, up to ``retries``
    times. "Never": pods are not restarted, and the creator of the job, such as the operator, starts further
    attempts."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """Time between SIGTERM and SIGKILL, in seconds. It must be long enough to write a checkpoint."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = 604800
    """Time, in seconds, for which the PyTorchJob is kept after it has finished. If editr1 installed the release, its other
    objects are deleted with the PyTorchJob. A release that was installed with helm remains until it is uninstalled."""
    queue_name: Name = ""
    """Name of a Kueue LocalQueue. Kueue suspends the PyTorchJob when it is created, and starts it when the queue admits it."""
    suspend: bool = False
    """Create the PyTorchJob suspended, so that its pods do not start until it is resumed."""
    scheduling_policy: SchedulingPolicyValues = SchedulingPolicyValues()
    """Gang scheduling of the pods by the scheduler in ``schedulerName``."""
    nccl: NcclValues = NcclValues()
    """Settings of NCCL for several nodes."""


class CurateValues(TrainingValues):
    """Helm values for the ``curate`` chart."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of GPUs per pod. Curation needs no GPU, because it sends requests to a VLM endpoint."""
    config: CurateStageConfig = CurateStageConfig()
    """Settings of the stage, as under ``config`` in a run file."""


class SftValues(TrainingValues):
    """Helm values for the ``sft`` chart."""

    config: SftConfig = SftConfig()
    """Settings of the stage, as under ``config`` in a run file."""


class GcpoValues(TrainingValues):
    """Helm values for the ``gcpo`` chart."""

    config: GcpoConfig = GcpoConfig()
    """Settings of the stage, as under ``config`` in a run file."""


class RewardAddress(ChartSettings):
    """The reward service that scores sampled edits. Set either ``release`` or ``urls``."""

    release: OptionalName = ""
    """Name of a Helm release of charts/reward in the same namespace."""
    urls: list[Annotated[str, Field(pattern=r"^https?://[^,\s]+$")]] = []
    """URLs of a reward service that is not a Helm release in the same namespace."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|hub:.+)?$")] = ""
    """Digest of the verifier that must compute all scores: sha256:<64 hex digits> or hub:<name>@<commit>. If it is
    empty, ``editr1 submit`` reads the digest from the Deployment of ``release``. Without ``editr1 submit``, the pod
    requests the digest from the service."""
    identity: str = ""
    """Identity of the reward model that is part of ``key``, as JSON. ``editr1`` sets it together with ``key``."""


class GrpoValues(TrainingValues):
    """Helm values for the ``grpo`` chart."""

    reward: RewardAddress = RewardAddress()
    """Reward service that scores the sampled edits."""
    config: GrpoConfig = GrpoConfig()
    """Settings of the stage, as under ``config`` in a run file."""


class EvaluateValues(TrainingValues):
    """Helm values for the ``evaluate`` chart."""

    config: EvaluateConfig = EvaluateConfig()
    """Settings of the stage, as under ``config`` in a run file."""
