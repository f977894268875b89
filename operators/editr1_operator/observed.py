"""The observed state of a run, on which the next decision is based."""

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
    """Attempt number in the annotations of the job."""
    terminating: bool = False
    """Whether the job or service is being deleted."""
    owned: bool = False
    """Whether this run is an owner of the job or shared service."""
    result: StageResult | None = None
    """Result that the stage committed, if it was read."""
    result_read: bool = False
    """Whether the result was looked up in the artifact store after the job ended."""
    progress: str = ""
    """Last progress that the stage published."""
    last_error: str = ""
    """Last error that a failed stage published."""

    @property
    def has_job(self) -> bool:
        """Whether a job or service exists that is not being deleted."""
        return self.uid != "" and not self.terminating


@dataclass(frozen=True)
class ObservedRun:
    """The specification, the last status and the observed stages of a run."""

    name: str
    spec: RunBody
    status: RunStatus
    generation: int
    now: float
    """Time of the observation in seconds since the epoch."""
    stages: Mapping[str, ObservedStage] = field(default_factory=dict)
