"""Values of the charts that create a PyTorchJob: curate, sft, gcpo, grpo and evaluate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from editr1.config.chart import ChartSettings, Name, StageValues
from editr1.config.curate_stage import CurateStageConfig
from editr1.config.evaluate import EvaluateConfig
from editr1.config.gcpo import GcpoConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.sft import SftConfig

Reference = Annotated[
    str,
    Field(
        pattern=r"^(sha256:[0-9a-f]{64}|run:[^/]+/[^/]+/[^/]+|hub:.+|builtin:shapes-(verifier|verifier-small|editor))$"
    ),
]
"""Reference to an input: sha256:<digest> of an artifact in the store, run:<run>/<stage>/<output>,
hub:<name>@<revision>, or builtin:<name>."""


class NcclValues(ChartSettings):
    """NCCL settings for communication between nodes."""

    preset: Literal["none", "ethernet", "infiniband", "efa"] = "none"
    """Set of NCCL environment variables. none: set none, so that NCCL detects the network; ethernet: disable
    InfiniBand; infiniband: use InfiniBand with GPUDirect; efa: use the AWS Elastic Fabric Adapter."""
    debug: Literal["WARN", "INFO", "TRACE"] = "WARN"
    """Value of NCCL_DEBUG."""
    interface: str = ""
    """Value of NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME. If empty, neither is set."""


class TrainingValues(StageValues):
    """Values of a stage that runs to completion."""

    inputs: dict[str, Reference] = {}
    """Inputs of the stage, as a mapping from input name to reference."""
    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Number of pods. Each pod is one node of the torchrun job."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes per pod (torchrun's nproc_per_node); 0 starts one per GPU."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Maximum number of restarts after a failure. It is the backoffLimit of the PyTorchJob and, with several nodes,
    torchrun's maximum number of restarts."""
    restart_policy: Literal["ExitCode", "Never"] = "ExitCode"
    """ExitCode: a pod that exits with code 128 or above is restarted, up to ``retries`` times. Never: pods are not
    restarted, and the creator of the job, such as the operator, starts further attempts."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """Time between SIGTERM and SIGKILL, in seconds. It must be long enough to write a checkpoint."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = 604800
    """Time for which the PyTorchJob is kept after it has finished, in seconds."""
    queue_name: Name = ""
    """Name of a Kueue LocalQueue. If set, the PyTorchJob is created suspended, and Kueue starts it."""
    suspend: bool = False
    """Create the PyTorchJob suspended, so that it has no pods yet."""
    nccl: NcclValues = NcclValues()
    """Communication between nodes."""


class CurateValues(TrainingValues):
    """Values of charts/curate."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs per pod. Curation needs none, because it sends requests to a VLM endpoint."""
    config: CurateStageConfig = CurateStageConfig()
    """Settings of the stage."""


class SftValues(TrainingValues):
    """Values of charts/sft."""

    config: SftConfig = SftConfig()
    """Settings of the stage."""


class GcpoValues(TrainingValues):
    """Values of charts/gcpo."""

    config: GcpoConfig = GcpoConfig()
    """Settings of the stage."""


class RewardAddress(ChartSettings):
    """The reward service that scores samples. Set either ``release`` or ``urls``."""

    release: Annotated[str, Field(max_length=53)] = ""
    """Name of a release of charts/reward in the same namespace."""
    urls: list[Annotated[str, Field(pattern=r"^https?://[^,\s]+$")]] = []
    """URLs of a reward service that is not a release in this namespace."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|hub:.+)?$")] = ""
    """Digest of the verifier that must answer all requests. If empty, all requests must be answered by the verifier
    that answered the first one."""


class GrpoValues(TrainingValues):
    """Values of charts/grpo."""

    reward: RewardAddress = RewardAddress()
    """Reward service that scores the samples."""
    config: GrpoConfig = GrpoConfig()
    """Settings of the stage."""


class EvaluateValues(TrainingValues):
    """Values of charts/evaluate."""

    config: EvaluateConfig = EvaluateConfig()
    """Settings of the stage."""
