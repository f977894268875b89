"""The order in which the runs of a reproduction are started."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from editr1.config.reproduce import Budget
from editr1.reproduce.experiments import Experiment, make_experiments, run_name, with_dependencies


@dataclass(frozen=True)
class PlannedRun:
    """An experiment with one seed. ``number`` is its position in the plan, from 1 to ``total``."""

    seed: int
    experiment: Experiment
    number: int
    total: int

    @property
    def run(self) -> str:
        """Name of the run."""
        return run_name(self.seed, self.experiment.name)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs whose outputs this run reads."""
        return tuple(run_name(self.seed, name) for name in self.experiment.needs)


def make_plan(names: Iterable[str], seeds: Sequence[int], budget: Budget) -> list[PlannedRun]:
    """Return the runs of the experiments ``names`` and of their dependencies, seed by seed, dependencies first."""
    wanted = list(names)
    found = [
        (seed, experiment) for seed in seeds for experiment in with_dependencies(wanted, make_experiments(seed, budget))
    ]
    return [
        PlannedRun(seed, experiment, number, len(found)) for number, (seed, experiment) in enumerate(found, start=1)
    ]


def next_run(waiting: Sequence[PlannedRun], unfinished: Collection[str]) -> PlannedRun | None:
    """Return the first run in ``waiting`` that does not depend on a run in ``unfinished``, or None if there is no such run."""
    return next((item for item in waiting if not set(item.needs) & set(unfinished)), None)
