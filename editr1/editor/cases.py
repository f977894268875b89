"""The order of the training cases. It depends only on the seed, so a resumed run continues it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.data.tables import count_rows, read_table
from editr1.data.types import EditCase
from editr1.seeding import case_order_rng


@dataclass(frozen=True)
class KeyedCase:
    """An edit case and its group key, which is its position in the order of the run.

    Cases with the same instruction therefore belong to different groups.
    """

    key: int
    case: EditCase


class CaseOrder:
    """The cases of each iteration for one process.

    Every epoch shuffles the rows of the table; each iteration takes the next ``per_iteration`` of them and divides them
    evenly among the processes. Only the rows that this process needs are kept in memory.

    Args:
        path: Parquet table of ``EditCase`` with principles.
        seed: Seed of the order.
        per_iteration: Number of cases per iteration, over all processes.
        iterations: Number of iterations of the run.
        first: First iteration to run; above 0 after a resume.
        rank: Rank of this process.
        size: Number of processes.

    Raises:
        ConfigError: The cases do not divide evenly among the processes.
        TableError: The table is empty, or a row has no principles.
    """

    def __init__(
        self,
        path: Path,
        *,
        seed: int,
        per_iteration: int,
        iterations: int,
        first: int = 0,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        if per_iteration % size:
            raise ConfigError(
                f"cases_per_iteration {per_iteration} does not divide evenly among {size} processes; use a multiple of {size}"
            )
        self._seed, self._per_iteration = seed, per_iteration
        self._per_process = per_iteration // size
        self._rank = rank
        self._rows = count_rows(path)
        if self._rows == 0:
            raise TableError(path, None, None, None, "the table has no cases; training needs at least one")
        needed = {self._row(key) for i in range(first, iterations) for key in self._keys(i)}
        self._cases: dict[int, EditCase] = {}
        for row, case in enumerate(read_table(path, EditCase)):
            if not case.principles:
                rule = f"case {case.case_id} has no principles; the verifier needs at least one"
                raise TableError(path, row + 1, "principles", None, rule)
            if row in needed:
                self._cases[row] = case

    def iteration(self, i: int) -> list[KeyedCase]:
        """Return this process's cases of iteration ``i``."""
        return [KeyedCase(key, self._cases[self._row(key)]) for key in self._keys(i)]

    def _keys(self, i: int) -> range:
        start = i * self._per_iteration + self._rank * self._per_process
        return range(start, start + self._per_process)

    def _row(self, key: int) -> int:
        epoch, at = divmod(key, self._rows)
        return _shuffled_rows(self._seed, epoch, self._rows)[at]


@lru_cache(maxsize=4)
def _shuffled_rows(seed: int, epoch: int, rows: int) -> list[int]:
    order = list(range(rows))
    case_order_rng(seed, epoch).shuffle(order)
    return order
