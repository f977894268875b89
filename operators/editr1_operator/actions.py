"""The actions that the operator can take for a stage. All actions are idempotent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resolve:
    """Resolve the inputs of the stage to digests, compute the stage's key, and look up a result with that key in the store."""

    stage: str


@dataclass(frozen=True)
class LoadResult:
    """Read the result that the stage committed to the artifact store."""

    stage: str


@dataclass(frozen=True)
class Launch:
    """Create the Kubernetes objects of attempt number ``attempt`` of the stage. Attempts are counted from 1."""

    stage: str
    attempt: int


@dataclass(frozen=True)
class DeleteJob:
    """Delete the job of the stage if it has this UID. Its pods receive SIGTERM and commit a checkpoint."""

    stage: str
    uid: str


@dataclass(frozen=True)
class ForceDeletePod:
    """Delete a pod of the stage by force.

    The node of the pod is lost, so no kubelet can confirm that the pod has stopped.
    """

    stage: str
    pod: str
    uid: str


@dataclass(frozen=True)
class SetSuspended:
    """Suspend the job of the stage, or resume it if ``suspended`` is False."""

    stage: str
    suspended: bool


@dataclass(frozen=True)
class EnsureService:
    """Create a reward service. If another run has already created it, add this run to its owners."""

    stage: str


@dataclass(frozen=True)
class ReleaseService:
    """Remove this run from the owners of a reward service. A service that no longer has an owner is deleted."""

    stage: str


Action = Resolve | LoadResult | Launch | DeleteJob | ForceDeletePod | SetSuspended | EnsureService | ReleaseService
