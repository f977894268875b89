"""Values of the charts that launch a PyTorchJob: curate, sft, gcpo, grpo, evaluate."""

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
"""An input: sha256:<digest> in the store, run:<run>/<stage>/<output>, hub:<name>@<revision>, or builtin:<name>."""


class NcclValues(ChartSettings):
    """How ranks of several nodes talk."""

    preset: Literal["none", "ethernet", "infiniband", "efa"] = "none"
    """none leaves NCCL to find out; ethernet turns InfiniBand off; infiniband asks for it with GPUDirect; efa is AWS."""
    debug: Literal["WARN", "INFO", "TRACE"] = "WARN"
    """NCCL_DEBUG."""
    interface: str = ""
    """NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME; empty leaves both alone."""


class TrainingValues(StageValues):
    """A stage that runs to its end."""

    inputs: dict[str, Reference] = {}
    """Input name to reference."""
    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Pods. More than one train together through torchrun's rendezvous."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes a pod (torchrun's nproc_per_node); 0 means one a GPU."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Times that torchrun starts the ranks of several nodes again after one of them failed; also the job's backoffLimit."""
    restart_policy: Literal["ExitCode", "Never"] = "ExitCode"
    """ExitCode: a pod that ends with 128 or above starts again, up to ``retries`` times. Never: whoever made the job decides."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """Time between SIGTERM and SIGKILL: a checkpoint must fit in."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = 604800
    """How long the finished job stays, in seconds."""
    queue_name: Name = ""
    """Kueue LocalQueue; the job then starts suspended and Kueue lets it go."""
    suspend: bool = False
    """Make the job without starting it."""
    nccl: NcclValues = NcclValues()
    """Communication of several nodes."""


class CurateValues(TrainingValues):
    """Values of charts/curate."""

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of a pod. Curation asks a VLM endpoint and needs none."""
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
    """The reward service that scores samples. One of the two must be set."""

    release: Annotated[str, Field(max_length=53)] = ""
    """Release of charts/reward in the same namespace."""
    urls: list[Annotated[str, Field(pattern=r"^https?://[^,\s]+$")]] = []
    """Addresses of a reward service elsewhere."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|hub:.+)?$")] = ""
    """Model that the service must answer with; empty takes the first answer's and holds on to it."""


class GrpoValues(TrainingValues):
    """Values of charts/grpo."""

    reward: RewardAddress = RewardAddress()
    """Who scores the samples."""
    config: GrpoConfig = GrpoConfig()
    """Settings of the stage."""


class EvaluateValues(TrainingValues):
    """Values of charts/evaluate."""

    config: EvaluateConfig = EvaluateConfig()
    """Settings of the stage."""
