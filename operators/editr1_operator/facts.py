"""What decisions are made of: a run's spec, what stands in the cluster and the store, the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from editr1.launch.kubernetes.run_status import RunStatus
from editr1.launch.kubernetes.views import ReleaseView
from editr1.runs.record import StageResult
from editr1.runs.spec import RunBody


@dataclass(frozen=True)
class StageFacts:
    """A stage at this moment."""

    release: ReleaseView
    """Its job or service with pods and events."""
    uid: str = ""
    """Identity of the job; empty without one."""
    attempt: int = 0
    """Which attempt the job says it is."""
    leaving: bool = False
    """The job is being deleted."""
    owned: bool = False
    """This run is among the owners (of a shared service)."""
    result: StageResult | None = None
    """What the stage committed, where it was read."""
    result_read: bool = False
    """The store was asked for the result since the job ended."""
    progress: str = ""
    """How far the stage says it is."""
    last_error: str = ""
    """What the stage itself said last when it failed."""


@dataclass(frozen=True)
class RunFacts:
    """A run at this moment; ``now`` in seconds since the epoch."""

    name: str
    spec: RunBody
    status: RunStatus
    generation: int
    now: float
    stages: Mapping[str, StageFacts] = field(default_factory=dict)
