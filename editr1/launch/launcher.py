"""The launcher protocol: a backend renders, submits, observes and cancels the attempts of stages."""

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
    """State of a submitted attempt at one moment."""

    running: bool
    exit_code: int | None = None
    reason: str = ""
    ready_urls: tuple[str, ...] = ()
    progress: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Progress lines since the last observation (see editr1.telemetry.progress)."""
    note: str = ""
    """Why the attempt makes no progress, such as an unschedulable pod; empty if there is no problem."""


class Launcher(Protocol[Request, Handle]):
    """A backend that runs attempts of stages. ``render`` has no side effects, so a dry run can print its request."""

    def render(self, job: StageJob, stage: StageSpec, traceparent: str | None) -> Request:
        """Return the complete request for one attempt of the stage.

        ``stage`` sets the number of processes and, for backends that retry on their own, the number of retries.
        ``traceparent`` is the W3C trace context of the parent span.
        """
        ...

    def record_fields(self, request: Request) -> Mapping[str, str]:
        """Return the fields ``release``, ``image`` and ``chart`` of the stage's record; empty for a local process."""
        ...

    def submit(self, request: Request) -> Handle:
        """Start the attempt."""
        ...

    def observe(self, handle: Handle) -> Observation:
        """Return the attempt's state without waiting."""
        ...

    def cancel(self, handle: Handle, grace: float) -> None:
        """Send SIGTERM, kill the attempt after ``grace`` seconds, and return when it has ended."""
        ...
