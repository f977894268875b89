"""Show the progress of ``editr1 reproduce`` on the terminal: one bar per active run, and one bar for all runs together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from editr1.cli.view import PLAIN_SECONDS, format_metrics
from editr1.durations import format_duration
from editr1.reproduce.plan import PlannedRun
from editr1.reproduce.results import Reproduction
from editr1.terminal.console import error_console, styled


class ReproductionView:
    """Progress display of a reproduction: bars on a terminal, otherwise one line per run every few seconds.

    It also passes each intermediate result to ``on_results``.
    """

    def __init__(self, on_results: Callable[[Reproduction], None], console: Console | None = None) -> None:
        self._on_results = on_results
        self.console = console or error_console()
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[metrics]}", style="dim", markup=False),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_printed: dict[str, float] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> ReproductionView:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def experiment_skipped(self, item: PlannedRun) -> None:
        """Print that a run is already complete, and advance the bar for all runs."""
        self.console.print(styled(*_title(item), "  already complete"), style="dim")
        self._advance(item)

    def experiment_started(self, item: PlannedRun) -> None:
        """Print that a run was started, and add a bar for it."""
        self._advance(item, 0)
        self.console.print(styled(*_title(item), f"  started: {item.experiment.what}"))
        if self.console.is_terminal:
            self._tasks[item.run] = self._bars.add_task(item.run, total=None, metrics="")

    def experiment_progress(self, item: PlannedRun, stage: str, line: Mapping[str, Any]) -> None:
        """Update the bar of a run, or print a line every few seconds."""
        metrics = format_metrics(line.get("metrics", {}), limit=3)
        label = f"{item.run} {stage}: {line['phase']}"
        if self.console.is_terminal:
            self._bars.update(
                self._tasks[item.run], description=label, completed=line["done"], total=line["total"], metrics=metrics
            )
        elif time.monotonic() - self._last_printed.get(item.run, 0.0) > PLAIN_SECONDS:
            self._last_printed[item.run] = time.monotonic()
            self.console.print(f"  {label} {line['done']}/{line['total']}  {metrics}", soft_wrap=True)

    def experiment_ended(self, item: PlannedRun, seconds: float, failure: str | None) -> None:
        """Print that a run is done or why it failed, and advance the bar for all runs."""
        if item.run in self._tasks:
            self._bars.remove_task(self._tasks.pop(item.run))
        word = ("done", "green") if failure is None else ("failed", "red")
        self.console.print(styled(*_title(item), "  ", word, f" in {format_duration(seconds)}"))
        if failure is not None:
            self.console.print(f"  {failure}", style="red")
        self._advance(item)

    def results_updated(self, found: Reproduction) -> None:
        """Pass intermediate results to ``on_results``, so that they are saved before all seeds are done."""
        self._on_results(found)

    def _advance(self, item: PlannedRun, runs: int = 1) -> None:
        if self._all is None:
            self._all = self._bars.add_task("all runs", total=item.total, metrics="")
        self._bars.advance(self._all, runs)


def _title(item: PlannedRun) -> tuple[tuple[str, str], str]:
    return (item.run, "bold"), f" ({item.number} of {item.total})"
