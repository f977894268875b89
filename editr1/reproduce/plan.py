"""Which cell is next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from editr1.config.reproduce import Budget
from editr1.reproduce.experiments import Experiment, make_cells, run_name, with_needs


@dataclass(frozen=True)
class Item:
    """A cell at a seed: number ``number`` (from 1) of ``total``."""

    seed: int
    cell: Experiment
    number: int
    total: int

    @property
    def run(self) -> str:
        """Name of its run."""
        return run_name(self.seed, self.cell.name)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs whose outputs it reads."""
        return tuple(run_name(self.seed, name) for name in self.cell.needs)


def make_plan(names: Iterable[str], seeds: Sequence[int], budget: Budget) -> list[Item]:
    """The cells ``names`` and what they build on, seed by seed, in an order in which they can run."""
    wanted = list(names)
    found = [(seed, cell) for seed in seeds for cell in with_needs(wanted, make_cells(seed, budget))]
    return [Item(seed, cell, number, len(found)) for number, (seed, cell) in enumerate(found, start=1)]


def next_item(waiting: Sequence[Item], unfinished: Collection[str]) -> Item | None:
    """The first of ``waiting`` none of whose needs is in ``unfinished`` (runs that wait or run); None while all must wait."""
    return next((item for item in waiting if not set(item.needs) & set(unfinished)), None)
