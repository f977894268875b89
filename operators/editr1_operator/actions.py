"""What a decision may ask for. Each is safe to apply twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resolve:
    """Freeze the stage's inputs to digests, compute its key, and look whether its result stands."""

    stage: str


@dataclass(frozen=True)
class Load:
    """Read the result that the stage committed."""

    stage: str


@dataclass(frozen=True)
class Launch:
    """Apply the stage's objects as attempt number ``attempt``."""

    stage: str
    attempt: int


@dataclass(frozen=True)
class Remove:
    """Delete the job with that identity; its pods get SIGTERM and commit a checkpoint."""

    stage: str
    uid: str


@dataclass(frozen=True)
class Drop:
    """Remove a pod from the API server though nobody says that it ended: its node is gone."""

    stage: str
    pod: str
    uid: str


@dataclass(frozen=True)
class Hold:
    """Suspend the stage's job, or let it go on."""

    stage: str
    suspended: bool


@dataclass(frozen=True)
class Serve:
    """Apply the service's objects, shared with every run that needs the same, this run as one of their owners."""

    stage: str


@dataclass(frozen=True)
class Leave:
    """Give the service up; it goes with its last owner."""

    stage: str


Action = Resolve | Load | Launch | Remove | Drop | Hold | Serve | Leave
