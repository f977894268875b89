"""Run the cells of every seed, several at the same time; what stands already is not run again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.reproduce import Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Bootstrap
from editr1.reproduce.cells import make_cells, run_of, with_needs
from editr1.reproduce.claims import Contrast, cell_names
from editr1.reproduce.plan import Item, make_plan, next_item
from editr1.reproduce.process import CellProcess
from editr1.reproduce.results import Collected, Reproduction, ceilings, describe, judge
from editr1.runs.drive import ABORT_SECONDS, GRACE_SECONDS, RunStopped
from editr1.runs.execute import versions
from editr1.runs.record import load_record
from editr1.runs.resolve import standing
from editr1.runs.spec import RunSpec, check_run

POLL_SECONDS = 0.2


class Watcher(Protocol):
    """Who watches a reproduction: the terminal, a test."""

    def cell_stands(self, item: Item) -> None:
        """Its results were there before."""

    def cell_started(self, item: Item) -> None:
        """Its process begins."""

    def cell_progress(self, item: Item, stage: str, line: Mapping[str, Any]) -> None:
        """A progress line of one of its stages (see editr1.telemetry.progress)."""

    def cell_ended(self, item: Item, seconds: float, failure: str | None) -> None:
        """It has its results after ``seconds`` of this call, or failed and why."""


def reproduce(
    contrasts: Sequence[Contrast],
    seeds: Sequence[int],
    budget: Budget,
    folder: Path,
    *,
    command: str,
    watcher: Watcher,
    should_stop: Callable[[], bool],
    parallel: int = 1,
    on_found: Callable[[Reproduction], None] = lambda _: None,
) -> Reproduction:
    """Run every cell that ``contrasts`` need, at each seed, ``parallel`` of them at the same time, and judge them.

    A cell that fails takes with it those that build on it; the others go on, and what was not measured says so.
    ``on_found`` is told what is known whenever the last cell of a seed in which something was run has ended, and at the
    end. Artifacts and records lie in ``folder/store``, a cell's logs in ``folder/runs/<run>``. Interrupted and called
    again it goes on where it was.

    Raises:
        ConfigError: a cell is no run that can run, before any is started.
        RunStopped: ``should_stop`` said yes.
    """
    plan = make_plan(cell_names(contrasts), seeds, budget)
    where = StoreConfig(url=(folder.resolve() / "store").as_uri())
    for item in plan:
        check_run(run_of(item.cell, item.seed, where.url), f"seed {item.seed}, cell {item.cell.name}")
    runs = _Runs(plan, folder.resolve() / "runs", where, watcher, parallel)
    try:
        for seed in runs.until_done(should_stop):
            known = seeds[: seeds.index(seed) + 1]
            if seed != seeds[-1]:
                on_found(_found(contrasts, known, budget, command, runs.collected))
    except BaseException as error:
        runs.stop(GRACE_SECONDS if isinstance(error, RunStopped) else ABORT_SECONDS)
        raise
    found = _found(contrasts, seeds, budget, command, runs.collected)
    on_found(found)
    return found


class _Runs:
    def __init__(self, plan: Sequence[Item], folder: Path, where: StoreConfig, watcher: Watcher, parallel: int) -> None:
        self.collected = Collected()
        self._waiting, self._running = list(plan), dict[str, tuple[Item, CellProcess]]()
        self._failed: set[str] = set()
        self._worked: set[int] = set()
        self._folder, self._where, self._watcher, self._parallel = folder, where, watcher, parallel
        self._store: ArtifactStore = open_store(where)
        # Cells share the cores; threads that spin while they wait would take them from each other.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shared = {"OMP_NUM_THREADS": str(max(1, cores // parallel)), "OMP_WAIT_POLICY": "PASSIVE"}
        self._environment = (
            {name: os.environ.get(name, value) for name, value in shared.items()} if parallel > 1 else {}
        )

    def until_done(self, should_stop: Callable[[], bool]) -> Iterator[int]:
        """Run everything; yields a seed in which something was run when its last cell has ended, seeds in order."""
        reported: set[int] = set()
        while self._waiting or self._running:
            if should_stop():
                raise RunStopped
            started = self._start_next()
            for run in list(self._running):
                self._look_at(run)
            open_seeds = {item.seed for item in self._waiting} | {item.seed for item, _ in self._running.values()}
            for seed in sorted(self._worked - open_seeds - reported):
                reported.add(seed)
                yield seed
            if not started:
                time.sleep(POLL_SECONDS)

    def stop(self, grace: float) -> None:
        """End what runs; each has ``grace`` seconds to commit a checkpoint."""
        for _, process in self._running.values():
            process.ask_to_stop()
        for _, process in self._running.values():
            process.end(grace)

    def _start_next(self) -> bool:
        """Take the next cell that need not wait, if there is room for it."""
        unfinished = {item.run for item in self._waiting} | self._running.keys()
        item = next_item(self._waiting, unfinished) if len(self._running) < self._parallel else None
        if item is None:
            return False
        self._waiting.remove(item)
        spec = run_of(item.cell, item.seed, self._where.url)
        missing = [run for run in item.needs if run in self._failed]
        if missing:
            self._fail(item, 0.0, f"{missing[0]} failed")
        elif self._stands(item, spec):
            self._watcher.cell_stands(item)
        else:
            self._worked.add(item.seed)
            self._running[item.run] = item, CellProcess(spec, self._folder, self._environment)
            self._watcher.cell_started(item)
        return True

    def _look_at(self, run: str) -> None:
        item, process = self._running[run]
        code = process.poll()
        for stage, line in process.progress():
            self._watcher.cell_progress(item, stage, line)
        if code is None:
            return
        del self._running[run]
        seconds, record = process.seconds(), load_record(self._store, run)
        if code == 0 and record is not None:
            self.collected.add(item.seed, item.cell, record, self._store)
            self._watcher.cell_ended(item, seconds, None)
        else:
            self._fail(item, seconds, process.why(self._store))

    def _stands(self, item: Item, spec: RunSpec) -> bool:
        record = load_record(self._store, item.run)
        if record is None or not standing(spec, record, self._store):
            return False
        self.collected.add(item.seed, item.cell, record, self._store)
        return True

    def _fail(self, item: Item, seconds: float, why: str) -> None:
        self._failed.add(item.run)
        self.collected.failed[item.run] = why
        self._watcher.cell_ended(item, seconds, why)


def _found(
    contrasts: Sequence[Contrast], seeds: Sequence[int], budget: Budget, command: str, collected: Collected
) -> Reproduction:
    bootstrap = Bootstrap(samples=budget.bootstrap_samples)
    cells = with_needs(cell_names(contrasts), make_cells(seeds[0], budget))
    return Reproduction(
        seeds=tuple(seeds),
        budget=budget,
        command=command,
        git_revisions=sorted(collected.git_revisions),
        machines=sorted(collected.machines),
        versions=versions(),
        seconds=sum(collected.seconds.values()),
        failed=collected.failed,
        contrasts=[judge(contrast, collected, seeds, bootstrap) for contrast in contrasts],
        cells=[describe(cell, collected, seeds, bootstrap) for cell in cells],
        ceilings=ceilings(collected, bootstrap),
    )
