"""Follow releases on the terminal until they are over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from editr1.durations import format_duration

if TYPE_CHECKING:
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.overview import StageOverview

POLL_SECONDS = 2.0
PLAIN_SECONDS = 15.0


def follow_releases(
    connection: Connection, names: list[str], should_stop: Callable[[], bool], timeout: float | None = None
) -> int:
    """Show progress and what keeps a stage waiting; returns 0, the exit code of the first that failed, or 1.

    A service is over when it is ready. Interrupted, or after ``timeout`` seconds, it returns 130 or 124; the releases
    go on.
    """
    from editr1.launch.kubernetes.errors import ClusterUnreachable
    from editr1.launch.kubernetes.outage import OutageTolerance
    from editr1.launch.kubernetes.overview import explain, overview
    from editr1.launch.kubernetes.state import Phase

    console = Console(stderr=True)
    end = None if timeout is None else time.monotonic() + timeout
    said: dict[str, str] = {}
    tolerance = OutageTolerance()
    view = _Bars(console)
    with view:
        while True:
            stages: list[StageOverview] = []
            gone: set[str] = set()
            try:
                stages = [overview(connection, job) for job in connection.api.jobs() if job.name in names]
            except ClusterUnreachable as error:
                note = tolerance.record(error)
                if said.get("") != note:
                    said[""] = note
                    console.print(f"  {note}", markup=False, highlight=False)
            else:
                tolerance.answered()
                said.pop("", None)
                gone = set(names) - {stage.job.name for stage in stages}
            for stage in stages:
                view.show(stage)
                sentence = explain(stage)
                if (stage.state.reason or stage.state.phase is not Phase.RUNNING) and said.get(
                    stage.job.name
                ) != sentence:
                    said[stage.job.name] = sentence
                    console.print(f"  {sentence}", markup=False, highlight=False)
            failed = [stage for stage in stages if stage.state.phase is Phase.FAILED]
            over = [s for s in stages if s.state.phase is Phase.FAILED or _serves(s) or _succeeded(s)]
            if gone:
                console.print(f"  {', '.join(sorted(gone))}: no longer there", markup=False)
                return 1
            if stages and len(over) == len(names):
                return (failed[0].state.exit_code or 1) if failed else 0
            if should_stop():
                console.print("  no longer followed; the stage goes on")
                return 130
            if end is not None and time.monotonic() > end:
                return 124
            time.sleep(POLL_SECONDS)


def _succeeded(stage: StageOverview) -> bool:
    from editr1.launch.kubernetes.state import pods_left

    return stage.state.phase == "succeeded" and not pods_left(stage.release.pods, time.time())


def _serves(stage: StageOverview) -> bool:
    return stage.job.service and stage.state.phase == "ready"


class _Bars:
    """A bar a release on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, int] = {}
        self._last = 0.0

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, stage: StageOverview) -> None:
        at = stage.progress
        if at is None:
            return
        label = f"{stage.job.name}: {at.phase}"
        left = f"left {format_duration(at.seconds_left)}" if at.seconds_left is not None else ""
        if not self._console.is_terminal:
            if time.monotonic() - self._last > PLAIN_SECONDS:
                self._last = time.monotonic()
                self._console.print(f"  {label} {at.done}/{at.total}  {left}", markup=False, highlight=False)
            return
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=at.total, left="")
        self._progress.update(self._tasks[label], completed=at.done, total=at.total, left=left)  # type: ignore[arg-type]
