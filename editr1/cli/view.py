"""Show the progress of a run on the terminal: the name, a progress bar and the final metrics of each stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from editr1.durations import format_duration
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import StageRecord, State
from editr1.terminal.console import error_console, styled

PLAIN_SECONDS = 10.0
"""Minimum time in seconds between two progress lines if the output is not a terminal."""


class RunView:
    """Run observer that displays progress: bars on a terminal, otherwise one line every few seconds."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or error_console()
        self._bar = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[metrics]}", style="dim", markup=False),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last = 0.0

    def __enter__(self) -> RunView:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage_started(self, stage: StageRecord) -> None:
        """Print the stage's name and what it does."""
        self.console.print(styled((stage.name, "bold"), f"  {KINDS[Kind(stage.kind)].title}"))

    def stage_progress(self, stage: StageRecord, line: Mapping[str, Any]) -> None:
        """Update the progress bar of the stage's current phase, or print a line every few seconds."""
        metrics = format_metrics(line.get("metrics", {}), limit=4)
        label = f"{stage.name}: {line['phase']}"
        if not self.console.is_terminal:
            if time.monotonic() - self._last > PLAIN_SECONDS:
                self._last = time.monotonic()
                self.console.print(f"  {label} {line['done']}/{line['total']}  {metrics}", soft_wrap=True)
            return
        if label not in self._tasks:
            self._clear(stage)
            self._tasks[label] = self._bar.add_task(label, total=line["total"], metrics="")
        self._bar.update(self._tasks[label], completed=line["done"], total=line["total"], metrics=metrics)

    def stage_ended(self, stage: StageRecord) -> None:
        """Print the stage's state, duration and metrics."""
        self._clear(stage)
        last = stage.attempts[-1]
        seconds = (last.ended or time.time()) - last.started
        colour = {"done": "green", "failed": "red"}.get(stage.state, "yellow")
        self.console.print(
            styled(
                "  ",
                (str(stage.state), colour),
                f" in {format_duration(seconds)}  {format_metrics(stage.metrics, limit=6)}",
            ),
            soft_wrap=True,
        )
        if stage.state is State.FAILED:
            self.console.print(f"  {stage.reason}", style="red")
        if stage.state is State.DONE and stage.missing:
            line = stage.missing.sentence(stage.name)
            self.console.print(f"  {line}", style="yellow", markup=False, soft_wrap=True)

    def stage_skipped(self, stage: StageRecord, reason: str) -> None:
        """Print why the stage was skipped."""
        self.console.print(styled((stage.name, "bold"), f"  {reason}"))

    def stage_retried(self, stage: StageRecord, reason: str, delay: float) -> None:
        """Print why and when the stage is retried."""
        self._clear(stage)
        self.console.print(
            f"  {stage.name}: {reason}; retrying in {format_duration(delay)}", style="yellow", markup=False
        )

    def service_ready(self, stage: StageRecord, urls: tuple[str, ...]) -> None:
        """Print the addresses of the service."""
        self._clear(stage)
        self.console.print(f"  ready at {', '.join(urls)}")

    def run_waits(self, reason: str) -> None:
        """Print why the run has not started yet."""
        self.console.print(f"  waiting: {reason}", style="yellow")

    def stage_waits(self, stage: StageRecord, reason: str) -> None:
        """Print why the stage is not making progress."""
        self.console.print(f"  {stage.name}: {reason}", style="yellow")

    def _clear(self, stage: StageRecord) -> None:
        for label in [label for label in self._tasks if label.startswith(f"{stage.name}: ")]:
            self._bar.remove_task(self._tasks.pop(label))


def format_metrics(metrics: Mapping[str, float], limit: int) -> str:
    """Return one line with the names and values of the first ``limit`` metrics."""
    return "  ".join(f"{name} {format_value(value)}" for name, value in list(metrics.items())[:limit])


def format_value(value: float) -> str:
    """Return a whole number in full, such as "18,000", and any other number with four significant digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
