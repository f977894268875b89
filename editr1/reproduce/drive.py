"""Run the cells of every seed, one after another; what stands already is not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.reproduce import Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Bootstrap
from editr1.reproduce.cells import Cell, make_cells, run_of, with_needs
from editr1.reproduce.claims import Contrast
from editr1.reproduce.results import Collected, Reproduction, ceilings, describe, judge
from editr1.runs.drive import Observer, StageFailed
from editr1.runs.execute import execute, versions
from editr1.runs.spec import check_run

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

    A cell that fails takes with it those that build on it; the others go on, and what was not measured says so. The
    cells of a seed are finished before the next seed begins; ``on_found`` is told what is known after each seed in which
    something was run, and at the end. Artifacts and records lie in ``folder/store``, a cell's logs in
    ``folder/runs/<run>``. Interrupted and called again it goes on where it was.

    Raises:
        ConfigError: a cell is no run that can run, before any is started.
        RunStopped: ``should_stop`` said yes.
    """
    names = sorted({name for contrast in contrasts for name in contrast.cells})
    plan = [(seed, cell) for seed in seeds for cell in with_needs(names, make_cells(seed, budget))]
    where = StoreConfig(url=(folder.resolve() / "store").as_uri())
    for seed, cell in plan:
        check_run(run_of(cell, seed, where.url), f"seed {seed}, cell {cell.name}")
    runs = _Runs(folder, where, command, observer, should_stop)
    worked = False
    for number, (seed, cell) in enumerate(plan, start=1):
        on_cell(seed, cell, number, len(plan))
        worked = runs.run(seed, cell) or worked
        last_of_seed = number == len(plan) or plan[number][0] != seed
        if last_of_seed and worked and number < len(plan):
            on_found(_found(contrasts, seeds[: seeds.index(seed) + 1], budget, command, runs.collected))
    found = _found(contrasts, seeds, budget, command, runs.collected)
    on_found(found)
    return found


class _Runs:
    def __init__(
        self, folder: Path, where: StoreConfig, command: str, observer: Observer, should_stop: Callable[[], bool]
    ) -> None:
        self.collected = Collected()
        self._folder, self._where, self._command = folder, where, command
        self._observer, self._should_stop = observer, should_stop
        self._store: ArtifactStore = open_store(where)
        self._failed: set[tuple[int, str]] = set()

    def run(self, seed: int, cell: Cell) -> bool:
        """Run a cell, or note why it cannot be; whether anything was started."""
        spec = run_of(cell, seed, self._where.url)
        missing = [name for name in cell.needs if (seed, name) in self._failed]
        try:
            if missing:
                raise StageFailed(cell.name, f"cell {missing[0]} failed", 1)
            record, worked = execute(
                spec,
                folder=self._folder / "runs" / spec.metadata.name,
                command=self._command,
                observer=self._observer,
                should_stop=self._should_stop,
                store=self._where,
            )
        except StageFailed as error:
            self._failed.add((seed, cell.name))
            self.collected.failed[spec.metadata.name] = str(error)
            return True
        self.collected.add(seed, cell, record, self._store)
        return worked


def _found(
    contrasts: Sequence[Contrast], seeds: Sequence[int], budget: Budget, command: str, collected: Collected
) -> Reproduction:
    bootstrap = Bootstrap(samples=budget.bootstrap_samples)
    names = {name for contrast in contrasts for name in contrast.cells}
    cells = with_needs(names, make_cells(seeds[0], budget))
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
