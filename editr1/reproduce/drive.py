"""Run the cells of every seed, one after another; what stands already is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.reproduce import Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Bootstrap
from editr1.reproduce.cells import Cell, make_cells, run_of, with_needs
from editr1.reproduce.claims import Contrast
from editr1.reproduce.results import Collected, Reproduction, ceilings, describe, judge
from editr1.runs.drive import Observer
from editr1.runs.execute import execute, git_revision, machine, versions

OnCell = Callable[[int, Cell, int, int], None]
"""Told before a cell starts: its seed, the cell, its number and how many there are."""


def reproduce(
    contrasts: Sequence[Contrast],
    seeds: Sequence[int],
    budget: Budget,
    folder: Path,
    *,
    command: str,
    observer: Observer,
    should_stop: Callable[[], bool],
    on_cell: OnCell = lambda *_: None,
    on_found: Callable[[Reproduction], None] = lambda _: None,
) -> Reproduction:
    """Run every cell that ``contrasts`` need, at each seed, and judge them.

    The cells of a seed are finished before the next seed begins; ``on_found`` is told what is known after each. All
    artifacts and records lie in ``folder/store``, each cell's logs in ``folder/runs/<run>``. Interrupted and called
    again it goes on where it was.

    Raises:
        StageFailed, RunStopped, ConfigError: see editr1.runs.execute.
    """
    began = time.monotonic()
    where = StoreConfig(url=(folder.resolve() / "store").as_uri())
    store = open_store(where)
    collected = Collected()
    names = sorted({name for contrast in contrasts for name in contrast.cells})
    found: Reproduction | None = None
    for at, seed in enumerate(seeds):
        cells = with_needs(names, make_cells(seed, budget))
        for number, cell in enumerate(cells):
            on_cell(seed, cell, at * len(cells) + number + 1, len(seeds) * len(cells))
            spec = run_of(cell, seed, where.url)
            record, _ = execute(
                spec,
                folder=folder / "runs" / spec.metadata.name,
                command=command,
                observer=observer,
                should_stop=should_stop,
                store=where,
            )
            collected.add(seed, cell, record, store)
        done = tuple(seeds[: at + 1])
        bootstrap = Bootstrap(samples=budget.bootstrap_samples)
        found = Reproduction(
            seeds=done,
            budget=budget,
            command=command,
            git_revision=git_revision(),
            machine=machine(),
            versions=versions(),
            seconds=time.monotonic() - began,
            contrasts=[judge(contrast, collected, done, bootstrap) for contrast in contrasts],
            cells=[describe(cell, collected, done, bootstrap) for cell in cells],
            ceilings=ceilings(collected, bootstrap),
        )
        on_found(found)
    if found is None:
        raise ValueError("no seed was given")
    return found
