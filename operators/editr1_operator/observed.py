"""Data classes for the observed state of a run, from which :mod:`editr1_operator.decide` derives the next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from editr1.launch.kubernetes.run_status import RunStatus
from editr1.launch.kubernetes.views import ReleaseView
from editr1.runs.record import StageResult
from editr1.runs.spec import RunBody


@dataclass(frozen=True)
class ObservedStage:
    """The state of one stage in the cluster and in the artifact store."""

    release: ReleaseView
    """Job or service of the stage with its pods and events."""
    uid: str = ""
    """UID of the job or service; empty if it does not exist."""
    attempt: int = 0
    """Number of the attempt that the job belongs to, from the job's annotation."""
    terminating: bool = False
    """True while the job or service is being deleted."""
    owned: bool = False
    """True if this run is an owner of the job or service. A job with the same name may belong to something else."""
    result: StageResult | None = None
    """Result that the stage committed; None if there is none or it has not been read."""
    result_read: bool = False
    """True if the artifact store was already searched for a result during this reconciliation."""
    progress: str = ""
    """Progress that the stage last wrote to the artifact store, such as ``train 3/10``."""
    last_error: str = ""
    """Error that a failed stage last wrote to the artifact store."""

    @property
    def has_job(self) -> bool:
        """Return True if the job or service exists and is not being deleted."""
        return self.uid != "" and not self.terminating


@dataclass(frozen=True)
class ObservedRun:
    """A run's specification, its last status, and the observed state of its stages."""

    name: str
    spec: RunBody
    status: RunStatus
    generation: int
    now: float
    """Time of the observation in seconds since the epoch."""
    stages: Mapping[str, ObservedStage] = field(default_factory=dict)
