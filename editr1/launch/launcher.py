"""Protocol of launchers, which start, observe and cancel attempts of stages on one backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from editr1.runs.job import StageJob
from editr1.runs.spec import StageSpec

Request = TypeVar("Request")
Handle = TypeVar("Handle")


@dataclass(frozen=True)
class Observation:
    """State of a stage attempt at a point in time."""

    running: bool
    exit_code: int | None = None
    """Exit code of the attempt (128 + n if it was ended by signal n); None while it is running."""
    reason: str = ""
    """Reason for the failure of the attempt; empty if it is running or has succeeded."""
    ready_urls: tuple[str, ...] = ()
    """Addresses of the reward service; empty if it is not ready or if the stage is not a reward service."""
    progress: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Progress lines that the stage wrote since the last observation (see editr1.telemetry.progress)."""
    note: str = ""
    """Problem for which the attempt waits, such as a pod that cannot be scheduled; empty if there is none."""


class Launcher(Protocol[Request, Handle]):
    """Interface of a backend, such as local processes, that runs attempts of stages.

    An attempt is started in two steps. ``render`` builds the request without side effects, so that a dry run can print it.
    ``submit`` then starts the attempt.
    """

    def render(self, job: StageJob, stage: StageSpec, traceparent: str | None) -> Request:
        """Return the request that ``submit`` needs to start one attempt of the stage.

        Args:
            job: Settings and inputs of the attempt.
            stage: Stage in the run file. It sets the number of processes and, if the backend itself retries, the number of retries.
            traceparent: W3C trace context of the parent span.
        """
        ...

    def record_fields(self, request: Request) -> Mapping[str, str]:
        """Return the fields ``release``, ``image`` and ``chart`` of the stage's record.

        A backend without Helm releases returns an empty mapping.
        """
        ...

    def submit(self, request: Request) -> Handle:
        """Start the attempt that ``render`` prepared."""
        ...

    def observe(self, handle: Handle) -> Observation:
        """Return the current state of the attempt without waiting for a change."""
        ...

    def cancel(self, handle: Handle, grace: float) -> None:
        """Send SIGTERM to the processes of the attempt and wait until they exit. After ``grace`` seconds, send SIGKILL."""
        ...
