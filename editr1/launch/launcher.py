"""The launcher protocol: render, submit, observe, cancel. A backend is what turns a stage job into a running process."""

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
    """What a backend sees of a submitted stage at one moment."""

    running: bool
    exit_code: int | None = None
    reason: str = ""
    ready_urls: tuple[str, ...] = ()
    progress: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """Progress lines that are new since the last observation (see editr1.telemetry.progress)."""
    note: str = ""
    """Why the attempt does not get on, such as a pod that finds no node; empty while all is well."""


class Launcher(Protocol[Request, Handle]):
    """A backend. ``render`` has no side effect: a dry run is the request object itself."""

    def render(self, job: StageJob, stage: StageSpec, traceparent: str | None) -> Request:
        """Return the complete request for one attempt of the stage.

        ``stage`` gives the number of processes and, for a backend that retries by itself, of retries; ``traceparent`` is
        the W3C parent of the attempt's spans.
        """
        ...

    def facts(self, request: Request) -> Mapping[str, str]:
        """What the record of the stage should say of the request: ``release``, ``image``, ``chart``; empty where there are none."""
        ...

    def submit(self, request: Request) -> Handle:
        """Start the attempt."""
        ...

    def observe(self, handle: Handle) -> Observation:
        """Look at the attempt; returns at once."""
        ...

    def cancel(self, handle: Handle, grace: float) -> None:
        """Ask the attempt to stop (SIGTERM), kill it after ``grace`` seconds, return when it has ended."""
        ...
