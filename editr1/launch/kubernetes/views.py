"""Immutable data classes for the job or service, pods and events of one release.

They contain only the fields that this project uses, and do not depend on the kubernetes package.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STAGE_CONTAINERS = ("pytorch", "reward")
"""Names of the containers that run a stage: ``pytorch`` in a job, ``reward`` in a reward service."""


@dataclass(frozen=True)
class Condition:
    """A condition in the status of a Kubernetes object."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ContainerView:
    """A container of a pod."""

    name: str
    ready: bool = False
    restarts: int = 0
    waiting: str = ""
    """Reason why the container has not started, such as ImagePullBackOff; empty if it has started."""
    message: str = ""
    """Message from Kubernetes that explains the reason in ``waiting`` or ``terminated``."""
    exit_code: int | None = None
    terminated: str = ""
    """Reason why the container terminated, such as OOMKilled; empty if it has not terminated."""
    image: str = ""
    image_id: str = ""
    running: bool = False
    init: bool = False
    """Whether it is an init container. Kubernetes ends one that runs for as long as the pod (a native sidecar) with the pod."""


@dataclass(frozen=True)
class PodView:
    """A pod of a release. Times are seconds since the epoch."""

    name: str
    uid: str = ""
    phase: str = "Pending"
    node: str = ""
    reason: str = ""
    message: str = ""
    created: float = 0.0
    terminating: bool = False
    """True while the pod is being deleted."""
    deletion_deadline: float = 0.0
    """Time at which the grace period of a terminating pod ends; 0 for other pods."""
    role: str = ""
    """Type of the replica in its PyTorchJob: master or worker."""
    index: int = 0
    """Index of the replica in its PyTorchJob."""
    conditions: tuple[Condition, ...] = ()
    containers: tuple[ContainerView, ...] = ()

    @property
    def ready(self) -> bool:
        """Return True if the pod has the condition Ready."""
        return any(item.type == "Ready" and item.status == "True" for item in self.conditions)

    @property
    def main(self) -> ContainerView | None:
        """Return the container that runs the stage, or ``None`` if its status has not been reported yet."""
        return next((item for item in self.containers if item.name in STAGE_CONTAINERS), None)

    @property
    def kept_by(self) -> list[str]:
        """Return the names of the containers that keep the pod although the stage's process has ended.

        An example is the proxy of a service mesh. The phase of such a pod does not become Succeeded or Failed, also if the
        container waits for its image or for its next start.
        """
        if self.phase not in ("Running", "Pending") or self.main is None or self.main.exit_code is None:
            return []
        return [item.name for item in self.containers if (item.running or item.waiting) and not item.init]


@dataclass(frozen=True)
class JobView:
    """A PyTorchJob, or the Deployment of a reward service. ``service`` is True for the Deployment."""

    name: str
    run: str
    stage: str
    kind: str
    created: float = 0.0
    """Creation time in seconds since the epoch."""
    service: bool = False
    suspended: bool = False
    suspended_by_run: bool = False
    """Whether the operator suspended the job because its run is suspended."""
    queue: str = ""
    """Name of the Kueue LocalQueue in which the job waits for admission; empty if it uses no queue."""
    wanted: int = 1
    """Number of replicas that the specification requests."""
    ready: int = 0
    """Number of ready replicas of a service, or of active pods of a job."""
    conditions: tuple[Condition, ...] = ()

    def true_condition(self, type_: str) -> Condition | None:
        """Return the condition of the given type if its status is True, else ``None``."""
        return next((item for item in self.conditions if item.type == type_ and item.status == "True"), None)


@dataclass(frozen=True)
class EventView:
    """A Kubernetes event about an object of a release."""

    object: str
    """Name of the Kubernetes object to which the event refers."""
    reason: str
    message: str
    warning: bool = False
    t: float = 0.0
    """Time of the last occurrence of the event, in seconds since the epoch."""


@dataclass(frozen=True)
class ReleaseView:
    """The job or service of a release with its pods and events, observed at one moment."""

    name: str
    namespace: str
    job: JobView | None = None
    pods: tuple[PodView, ...] = ()
    events: tuple[EventView, ...] = field(default_factory=tuple)
