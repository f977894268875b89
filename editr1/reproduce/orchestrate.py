"""Run the cells of every seed, several at the same time; what stands already is not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from editr1.artifacts import ArtifactStore, StoreError, open_store
from editr1.config.reproduce import Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Bootstrap
from editr1.launch.local.lock import locked
from editr1.launch.orchestrator import ABORT_SECONDS, RunStopped
from editr1.reproduce.claims import Comparison, cell_names
from editr1.reproduce.experiments import make_cells, run_name, run_of, with_needs
from editr1.reproduce.plan import Item, make_plan, next_item
from editr1.reproduce.process import GRACE, CellProcess
from editr1.reproduce.results import Collected, Reproduction, ceilings, describe, judge, versions_of
from editr1.runs.record import load_record
from editr1.runs.resolve import is_complete
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
    contrasts: Sequence[Comparison],
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
    ``on_found`` is told what is known of the seeds that have ended, whenever one more has in which something was run, and
    at the end. Artifacts and records lie in ``folder/store``, a cell's logs in ``folder/runs/<run>``. Interrupted and called
    again it goes on where it was.

    Raises:
        ConfigError: a cell is no run that can run, before any is started.
        RunStopped: ``should_stop`` said yes.
    """
    plan = make_plan(cell_names(contrasts), seeds, budget)
    where = StoreConfig(url=(folder.resolve() / "store").as_uri())
    for item in plan:
        check_run(run_of(item.cell, item.seed, where.url), f"seed {item.seed}, cell {item.cell.name}")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", "another reproduction is at work here"):
        runs = _Runs(plan, folder.resolve() / "runs", where, watcher, parallel)
        try:
            for ended in runs.until_done(should_stop):
                if len(ended) < len(seeds):
                    on_found(_found(contrasts, ended, budget, command, runs.collected))
        except BaseException as error:
            runs.stop(GRACE if isinstance(error, RunStopped) else ABORT_SECONDS)
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

    def until_done(self, should_stop: Callable[[], bool]) -> Iterator[list[int]]:
        """Run everything; yields the seeds whose cells have all ended, whenever one more has in which something was run."""
        seeds, reported = sorted({item.seed for item in self._waiting}), set[int]()
        while self._waiting or self._running:
            if should_stop():
                raise RunStopped
            started = self._start_next()
            for run in list(self._running):
                self._look_at(run)
            at_work = {item.seed for item in self._waiting} | {item.seed for item, _ in self._running.values()}
            if new := self._worked - at_work - reported:
                reported |= new
                yield [seed for seed in seeds if seed not in at_work]
            if not started:
                time.sleep(POLL_SECONDS)

    def stop(self, grace: float) -> None:
        """End what runs; each has ``grace`` seconds to commit a checkpoint. Ctrl-C meanwhile ends that, too."""
        processes = [process for _, process in self._running.values()]
        for process in processes:
            process.ask_to_stop()
        try:
            for process in processes:
                process.end(grace)
        except KeyboardInterrupt:
            for process in processes:
                process.end(0.0)
            raise

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
            if self._collect(item):
                self._watcher.cell_stands(item)
        else:
            self._worked.add(item.seed)
            self._running[item.run] = item, CellProcess(spec, self._folder)
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
        if code != 0:
            self._fail(item, process.seconds(), process.why(self._store))
        elif self._collect(item):
            self._watcher.cell_ended(item, process.seconds(), None)

    def _stands(self, item: Item, spec: RunSpec) -> bool:
        record = load_record(self._store, item.run)
        return record is not None and is_complete(spec, record, self._store)

    def _collect(self, item: Item) -> bool:
        """Read what the cell left in the store; one that cannot be read has failed."""
        try:
            record = load_record(self._store, item.run)
            if record is None:
                raise ValueError("the run ended well and has no record")
            self.collected.add(item.seed, item.cell, record, self._store)
        except (StoreError, ValueError, OSError) as error:
            why = str(error).splitlines()[0]
            self._fail(
                item,
                0.0,
                f"its results cannot be read: {why}; without {self._store.url}/runs/{item.run} it is run again",
            )
            return False
        return True

    def _fail(self, item: Item, seconds: float, why: str) -> None:
        self._failed.add(item.run)
        self.collected.failed[item.seed, item.cell.name] = why
        self._watcher.cell_ended(item, seconds, why)


def _found(
    contrasts: Sequence[Comparison], seeds: Sequence[int], budget: Budget, command: str, collected: Collected
) -> Reproduction:
    bootstrap = Bootstrap(samples=budget.bootstrap_samples)
    records = [record for (seed, _), record in collected.records.items() if seed in seeds]
    cells = with_needs(cell_names(contrasts), make_cells(seeds[0], budget))
    return Reproduction(
        seeds=tuple(seeds),
        budget=budget,
        command=command,
        git_revisions=sorted({record.git_revision for record in records}),
        machines=sorted({record.machine for record in records}),
        versions=versions_of(records),
        seconds=sum(taken for (seed, _), taken in collected.seconds.items() if seed in seeds),
        failed={run_name(*key): why for key, why in collected.failed.items() if key[0] in seeds},
        contrasts=[judge(contrast, collected, seeds, bootstrap) for contrast in contrasts],
        cells=[describe(cell, collected, seeds, bootstrap) for cell in cells],
        ceilings=ceilings(collected, seeds, bootstrap),
    )
