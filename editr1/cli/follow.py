"""Show the progress of stages' Helm releases on the terminal until all of them have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from editr1.cli.common import NEGATIVE_RESULT
from editr1.durations import format_duration
from editr1.errors import ExitCode
from editr1.runs.next_step import NO_RESULT
from editr1.terminal.console import error_console

if TYPE_CHECKING:
    from editr1.artifacts.outage import OutageTolerance
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.overview import StageOverview

POLL_SECONDS = 2.0
PLAIN_SECONDS = 15.0
"""Minimum time in seconds between two progress lines if the output is not a terminal."""


def follow_releases(
    connection: Connection, names: Sequence[str], should_stop: Callable[[], bool], timeout: float | None = None
) -> int:
    """Show the progress of releases until they have ended; a service counts as ended when it is ready.

    Returns:
        DONE on success, the exit code of the first failed release, NEGATIVE_RESULT if a release was removed, INTERRUPTED if
        ``should_stop`` returned True, TIMEOUT after ``timeout`` seconds. In the last two cases the releases keep running.
    """
    from editr1.artifacts.outage import OutageTolerance

    end = None if timeout is None else time.monotonic() + timeout
    screen, tolerance = _Screen(error_console()), OutageTolerance()
    with screen:
        while True:
            code = _poll(connection, names, screen, tolerance)
            if code is not None:
                return code
            if should_stop():
                screen.write("stopped showing progress; the stage continues on the cluster")
                return ExitCode.INTERRUPTED
            if end is not None and time.monotonic() > end:
                return ExitCode.TIMEOUT
            time.sleep(POLL_SECONDS)


def exit_code_of_releases(stages: Sequence[StageOverview], now: float) -> int | None:
    """Return the exit code of a command that follows ``stages``, or None if at least one of them has not ended.

    ``now`` is in seconds since the epoch.
    """
    from editr1.launch.kubernetes.state import Phase

    if not stages or not all(_has_ended(stage, now) for stage in stages):
        return None
    failed = next((stage for stage in stages if stage.state.phase is Phase.FAILED), None)
    return (failed.state.exit_code or ExitCode.UNEXPECTED) if failed else ExitCode.DONE


def _poll(connection: Connection, names: Sequence[str], screen: _Screen, tolerance: OutageTolerance) -> int | None:
    """Show the current state of the releases.

    Returns the exit code if all releases have ended or one was removed, otherwise None.
    """
    from editr1.launch.kubernetes.errors import ClusterUnreachable
    from editr1.launch.kubernetes.overview import overview

    try:
        stages = [overview(connection, job) for job in connection.api.jobs() if job.name in names]
    except ClusterUnreachable as error:
        screen.note("", tolerance.record(error))
        return None
    tolerance.answered()
    screen.forget("")
    for stage in stages:
        screen.show(stage)
    if removed := set(names) - {stage.job.name for stage in stages}:
        screen.write(f"releases removed from the cluster: {', '.join(sorted(removed))}")
        return NEGATIVE_RESULT
    code = exit_code_of_releases(stages, time.time())
    if code == ExitCode.DONE and (missing := _without_result(stages, screen)):
        screen.write(f"{', '.join(missing)}: {NO_RESULT}")
        return NEGATIVE_RESULT
    return code


def _without_result(stages: Sequence[StageOverview], screen: _Screen) -> list[str]:
    """Return the names of the releases whose jobs succeeded without a result in the artifact store."""
    from editr1.artifacts import StoreError

    missing = []
    for stage in stages:
        if stage.job.service or stage.files is None:
            continue
        try:
            if not stage.files.has_result():
                missing.append(stage.job.name)
        except StoreError as error:
            screen.write(f"{stage.job.name}: the artifact store could not be searched for the result: {error}")
    return missing


def _has_ended(stage: StageOverview, now: float) -> bool:
    from editr1.launch.kubernetes.state import Phase, pods_left

    if stage.state.phase is Phase.READY:
        return stage.job.service
    if stage.state.phase is Phase.SUCCEEDED:
        return not pods_left(stage.release.pods, now)
    return stage.state.phase is Phase.FAILED


class _Screen:
    """Display for the progress of releases: bars on a terminal, otherwise one line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._noted: dict[str, str] = {}
        self._last_line = 0.0

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._bars.start()

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def write(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"  {text}")

    def note(self, about: str, text: str) -> None:
        """Print ``text`` unless it is identical to the previous text about ``about``.

        ``about`` is the name of a release, or an empty string if the text concerns the whole cluster.
        """
        if self._noted.get(about) != text:
            self._noted[about] = text
            self.write(text)

    def forget(self, about: str) -> None:
        """Forget the previous text about ``about``, so that :meth:`note` can print the same text again."""
        self._noted.pop(about, None)

    def show(self, stage: StageOverview) -> None:
        """Show the progress of a stage and, unless it is running without problems, an explanation of its state."""
        from editr1.launch.kubernetes.overview import explain
        from editr1.launch.kubernetes.state import Phase

        self._show_progress(stage)
        if stage.state.reason or stage.state.phase is not Phase.RUNNING:
            self.note(stage.job.name, explain(stage))

    def _show_progress(self, stage: StageOverview) -> None:
        at = stage.progress
        if at is None:
            return
        label = f"{stage.job.name}: {at.phase}"
        left = f"{format_duration(at.seconds_left)} left" if at.seconds_left is not None else ""
        if not self._console.is_terminal:
            if time.monotonic() - self._last_line > PLAIN_SECONDS:
                self._last_line = time.monotonic()
                self.write(f"{label} {at.done}/{at.total}  {left}")
            return
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=at.total, left="")
        self._bars.update(self._tasks[label], completed=at.done, total=at.total, left=left)
