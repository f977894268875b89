"""Which cases an iteration trains on: a function of the seed, so that a resumed run goes on with the same order."""

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
    """A case and its group key: the position in the run's order, never the instruction."""

    key: int
    case: EditCase


class CaseOrder:
    """Cases of each iteration for one process: epochs of shuffled rows, consecutive, split evenly over processes.

    Only the rows that this process will need are kept in memory.

    Raises:
        ValueError: an empty table, a case without principles (named by row), or cases that do not divide evenly.
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
            raise ConfigError(f"cases_per_iteration {per_iteration} does not divide evenly among {size} processes")
        self._seed, self._per_iteration = seed, per_iteration
        self._share = per_iteration // size
        self._rank = rank
        self._rows = count_rows(path)
        if self._rows == 0:
            raise TableError(path, None, None, None, "no cases")
        needed = {self._row(key) for i in range(first, iterations) for key in self._keys(i)}
        self._cases: dict[int, EditCase] = {}
        for row, case in enumerate(read_table(path, EditCase)):
            if not case.principles:
                rule = f"case {case.case_id} has none; the verifier needs at least one"
                raise TableError(path, row + 1, "principles", None, rule)
            if row in needed:
                self._cases[row] = case

    def iteration(self, i: int) -> list[KeyedCase]:
        """This process's cases of iteration ``i``."""
        return [KeyedCase(key, self._cases[self._row(key)]) for key in self._keys(i)]

    def _keys(self, i: int) -> range:
        start = i * self._per_iteration + self._rank * self._share
        return range(start, start + self._share)

    def _row(self, key: int) -> int:
        epoch, at = divmod(key, self._rows)
        return _shuffled(self._seed, epoch, self._rows)[at]


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, rows: int) -> list[int]:
    order = list(range(rows))
    case_order_rng(seed, epoch).shuffle(order)
    return order
