"""The order in which training uses the edit cases.

It depends only on the seed, so it does not change when training is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from editr1.config.loader import ConfigError
from editr1.data.errors import TableError
from editr1.data.tables import count_rows
from editr1.data.types import EditCase
from editr1.data.valid_rows import read_valid_rows
from editr1.seeding import case_order_rng


@dataclass(frozen=True)
class KeyedCase:
    """An edit case with the key of its sample group.

    The key is the position of the case in the training order, so two cases with the same instruction have different keys.
    """

    key: int
    case: EditCase


class CaseOrder:
    """Selection of the edit cases that one process trains on in each iteration.

    Every epoch shuffles the rows of the table. Each iteration takes the next ``per_iteration`` rows and divides them
    evenly among the processes. Only the cases of this process are held in memory.

    Args:
        path: Parquet table of :class:`EditCase` rows with principles.
        seed: Random seed for the shuffling.
        per_iteration: Number of cases per iteration, over all processes.
        iterations: Number of training iterations.
        first: First iteration to run; above 0 after a resume.
        rank: Rank of this process.
        size: Number of processes.

    Raises:
        ConfigError: ``per_iteration`` is not a multiple of the number of processes.
        TableError: The table is empty, or a case has no principles or violates a rule of :mod:`editr1.data.rules`. Images
            are not decoded here.
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
                f"cases_per_iteration {per_iteration} is not a multiple of the number of processes; use a multiple of {size}"
            )
        self._seed, self._per_iteration = seed, per_iteration
        self._per_process = per_iteration // size
        self._rank = rank
        self._rows = count_rows(path)
        if self._rows == 0:
            raise TableError(path, None, None, None, "the table is empty; provide at least one edit case")
        needed = {self._row(key) for i in range(first, iterations) for key in self._keys(i)}
        self._cases: dict[int, EditCase] = {}
        for number, case in read_valid_rows(path, EditCase, needs_principles=True, decode_images=False):
            if number - 1 in needed:
                self._cases[number - 1] = case

    def iteration(self, i: int) -> list[KeyedCase]:
        """Return the cases of this process in iteration ``i``."""
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
