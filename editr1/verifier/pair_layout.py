"""The order of preference pairs in GCPO's training rows and batches. All code that depends on this order uses this module.

In the training rows, row 2i is the winner of pair i, and row 2i + 1 is its loser. A batch has one entry per trace: N traces
for the winner of the first pair, N for its loser, N for the winner of the second pair, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from editr1.config.gcpo import traces_per_pair

T = TypeVar("T")

Side = Literal["winner", "loser"]


def row_count(pairs: int) -> int:
    """Return the number of training rows for ``pairs`` pairs."""
    return 2 * pairs


def pair_count(rows: int) -> int:
    """Return the number of pairs in ``rows`` training rows. Raises ValueError if the last pair is incomplete."""
    if rows % 2:
        raise ValueError(f"{rows} rows do not form whole pairs; a winner's row must be followed by its loser's")
    return rows // 2


def pair_of_row(row: int) -> tuple[int, Side]:
    """Return the index of the pair that a training row belongs to, and whether the row is the winner or the loser."""
    return row // 2, "loser" if row % 2 else "winner"


@dataclass(frozen=True)
class PairLayout:
    """Order of a batch with ``num_traces`` traces for the winner and for the loser of each pair."""

    num_traces: int

    @property
    def traces_per_pair(self) -> int:
        """Number of traces of one pair, for the winner and the loser together."""
        return traces_per_pair(self.num_traces)

    def rows(self, pairs: Sequence[int]) -> Iterator[int]:
        """Yield the row number of each trace in a batch of the given pairs."""
        for pair in pairs:
            for row in (2 * pair, 2 * pair + 1):
                yield from [row] * self.num_traces

    def check(self, rows: Sequence[int]) -> None:
        """Check the row numbers of a batch's traces. Raises ValueError unless they are whole pairs in this order."""
        expected = list(self.rows([pair_of_row(row)[0] for row in rows[:: self.traces_per_pair]]))
        if list(rows) != expected:
            raise ValueError(
                f"a batch of {len(rows)} traces does not consist of whole pairs with {self.num_traces} traces per edit:"
                f" row numbers {list(rows)[:64]}; the trainer must keep each pair on one process and in order"
            )

    def split(self, values: Sequence[T]) -> list[tuple[Sequence[T], Sequence[T]]]:
        """Split a list with one value per trace into (winner's values, loser's values) for each pair.

        Raises ValueError if the number of values is not a multiple of ``traces_per_pair``.
        """
        if len(values) % self.traces_per_pair:
            raise ValueError(
                f"{len(values)} traces do not form whole pairs of {self.num_traces} winner and {self.num_traces} loser traces;"
                " pass complete pairs"
            )
        size = self.num_traces
        return [
            (values[start : start + size], values[start + size : start + 2 * size])
            for start in range(0, len(values), self.traces_per_pair)
        ]

    def join(self, pairs: Sequence[tuple[Sequence[T], Sequence[T]]]) -> list[T]:
        """Join (winner's values, loser's values) of each pair into a list with one value per trace. Inverts :meth:`split`.

        Raises ValueError if the winner or the loser of a pair does not have ``num_traces`` values.
        """
        for winner, loser in pairs:
            if not len(winner) == len(loser) == self.num_traces:
                raise ValueError(
                    f"a pair has {len(winner)} winner and {len(loser)} loser values instead of {self.num_traces} each"
                )
        return [value for pair in pairs for side in pair for value in side]
