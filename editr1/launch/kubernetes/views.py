"""What the cluster says of one release, as plain values that decisions are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

TRAINING_CONTAINERS = ("pytorch", "reward")
"""The container of a pod that runs the stage."""


@dataclass(frozen=True)
class Condition:
    """A condition of an object's status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ContainerView:
    """A container of a pod. ``waiting`` and ``ended`` are the reasons Kubernetes gives, such as ImagePullBackOff."""

    name: str
    ready: bool = False
    restarts: int = 0
    waiting: str = ""
    message: str = ""
    exit_code: int | None = None
    ended: str = ""
    image: str = ""
    image_id: str = ""


@dataclass(frozen=True)
class PodView:
    """A pod of the release; ``created`` in seconds since the epoch."""

    name: str
    uid: str = ""
    phase: str = "Pending"
    node: str = ""
    reason: str = ""
    message: str = ""
    created: float = 0.0
    leaving: bool = False
    gone_by: float = 0.0
    """When a pod that is leaving should have gone, its grace included (seconds since the epoch)."""
    role: str = ""
    index: int = 0
    conditions: tuple[Condition, ...] = ()
    containers: tuple[ContainerView, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the pod takes work."""
        return any(c.type == "Ready" and c.status == "True" for c in self.conditions)

    @property
    def main(self) -> ContainerView | None:
        """The container that runs the stage, once it is known."""
        return next((c for c in self.containers if c.name in TRAINING_CONTAINERS), None)


@dataclass(frozen=True)
class JobView:
    """A PyTorchJob, or a Deployment (``service``)."""

    name: str
    run: str
    stage: str
    kind: str
    created: float = 0.0
    service: bool = False
    suspended: bool = False
    queue: str = ""
    wanted: int = 1
    ready: int = 0
    conditions: tuple[Condition, ...] = ()

    def is_true(self, condition: str) -> Condition | None:
        """The condition when it holds."""
        return next((c for c in self.conditions if c.type == condition and c.status == "True"), None)


@dataclass(frozen=True)
class EventView:
    """An event about an object of the release; ``t`` in seconds since the epoch."""

    object: str
    reason: str
    message: str
    warning: bool = False
    t: float = 0.0


@dataclass(frozen=True)
class ReleaseView:
    """All of it at one moment."""

    name: str
    namespace: str
    job: JobView | None = None
    pods: tuple[PodView, ...] = ()
    events: tuple[EventView, ...] = field(default_factory=tuple)
