"""A reproduction on the terminal: a line for each cell that ended, a bar for each that runs and for the whole."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from editr1.cli.view import PLAIN_SECONDS, in_words
from editr1.durations import format_duration
from editr1.reproduce.plan import Item


class ReproductionView:
    """Draws what a reproduction reports. On a terminal live bars; elsewhere a plain line a cell every few seconds."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> ReproductionView:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def cell_stands(self, item: Item) -> None:
        """Count it; a line says so."""
        self.console.print(f"{_place(item)}  stands already", style="dim", highlight=False)
        self._advance(item)

    def cell_started(self, item: Item) -> None:
        """Name it."""
        self._advance(item, 0)
        self.console.print(f"{_place(item)}  starts: {item.cell.what}", highlight=False)
        if self.console.is_terminal:
            self._tasks[item.run] = self._bars.add_task(item.run, total=None, figures="")

    def cell_progress(self, item: Item, stage: str, line: Mapping[str, Any]) -> None:
        """Move its bar."""
        figures = in_words(line.get("metrics", {}), most=3)
        label = f"{item.run} {stage}: {line['phase']}"
        if self.console.is_terminal:
            self._bars.update(
                self._tasks[item.run], description=label, completed=line["done"], total=line["total"], figures=figures
            )
        elif time.monotonic() - self._said.get(item.run, 0.0) > PLAIN_SECONDS:
            self._said[item.run] = time.monotonic()
            self.console.print(f"  {label} {line['done']}/{line['total']}  {figures}", highlight=False, soft_wrap=True)

    def cell_ended(self, item: Item, seconds: float, failure: str | None) -> None:
        """Say that it is done, or why it failed."""
        if item.run in self._tasks:
            self._bars.remove_task(self._tasks.pop(item.run))
        word = "[green]done[/]" if failure is None else "[red]failed[/]"
        self.console.print(f"{_place(item)}  {word} in {format_duration(seconds)}", highlight=False)
        if failure is not None:
            self.console.print(f"  {failure}", style="red", markup=False, highlight=False)
        self._advance(item)

    def _advance(self, item: Item, runs: int = 1) -> None:
        if self._all is None:
            self._all = self._bars.add_task("all runs", total=item.total, figures="")
        self._bars.advance(self._all, runs)


def _place(item: Item) -> str:
    return f"[bold]{item.run}[/] ({item.number} of {item.total})"
