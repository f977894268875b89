"""A reward model on a public set of preferences, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from editr1.evaluation.benchmarks.editscore import (
    Comparison,
    EditScoreRow,
    editscore_table,
    load_editscore,
    rate_editscore,
)
from editr1.evaluation.benchmarks.rating import Rate
from editr1.evaluation.benchmarks.tiger import load_tiger, rate_tiger, tiger_table
from editr1.evaluation.metrics import DEFAULT, Bootstrap
from editr1.evaluation.report.model import BenchmarkTable, Protocol


def reward_benchmark(
    name: Literal["editscore", "tiger"],
    folder: Path,
    rate: Rate,
    *,
    protocol: Protocol = "both",
    epsilon: float | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> BenchmarkTable:
    """Load, score and tabulate one set. ``epsilon`` is TIGER's tie threshold, see :func:`tiger_table`.

    Raises:
        BenchmarkError: the folder does not hold the set in its published layout.
    """
    if name == "editscore":
        kept: list[Comparison] = []

        def noted() -> Iterator[EditScoreRow]:
            for row in load_editscore(folder):
                kept.append(Comparison(row.keys, row.task_type, row.dimension))
                yield row

        scores = rate_editscore(noted(), rate)
        table = editscore_table(kept, scores, bootstrap)
    else:
        groups = load_tiger(folder)
        table = tiger_table(groups, rate_tiger(groups, rate), epsilon=epsilon, bootstrap=bootstrap)
    return only(table, protocol)


def only(table: BenchmarkTable, protocol: Protocol) -> BenchmarkTable:
    """The table with the columns of one rule; rows that have no figure under it are left out."""
    if protocol == "both":
        return table
    other = "ours" if protocol == "published" else "published"
    rows = tuple(row.model_copy(update={other: None}) for row in table.rows if getattr(row, protocol) is not None)
    return table.model_copy(update={"rows": rows, "protocol": protocol})
