"""The actions that a plan may contain. All of them are idempotent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resolve:
    """Resolve the stage's inputs to digests, compute its key, and check whether a result for that key exists."""

    stage: str


@dataclass(frozen=True)
class LoadResult:
    """Read the result that the stage committed to the artifact store."""

    stage: str


@dataclass(frozen=True)
class Launch:
    """Create the objects of the stage for attempt number ``attempt`` (counted from 1)."""

    stage: str
    attempt: int


@dataclass(frozen=True)
class DeleteJob:
    """Delete the job with this UID. Its pods receive SIGTERM and commit a checkpoint."""

    stage: str
    uid: str


@dataclass(frozen=True)
class ForceDeletePod:
    """Delete a pod without waiting for its kubelet, because its node is lost."""

    stage: str
    pod: str
    uid: str


@dataclass(frozen=True)
class SetSuspended:
    """Suspend or resume the job of the stage."""

    stage: str
    suspended: bool


@dataclass(frozen=True)
class EnsureService:
    """Create the objects of a reward service, or add this run to the owners of an existing shared one."""

    stage: str


@dataclass(frozen=True)
class ReleaseService:
    """Remove this run from the owners of a shared service; the service is deleted with its last owner."""

    stage: str


Action = Resolve | LoadResult | Launch | DeleteJob | ForceDeletePod | SetSuspended | EnsureService | ReleaseService
