"""Evaluate a verifier on a public benchmark of human preferences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from editr1.evaluation.benchmarks.edit_scorer import EditScorer
from editr1.evaluation.benchmarks.editscore import (
    Comparison,
    EditScoreRow,
    comparison,
    editscore_table,
    load_editscore,
    score_editscore,
)
from editr1.evaluation.benchmarks.tiger import load_tiger, score_tiger, tiger_table
from editr1.evaluation.metrics import DEFAULT, Bootstrap
from editr1.evaluation.report.model import BenchmarkTable, Protocol


def reward_benchmark(
    name: Literal["editscore", "tiger"],
    folder: Path,
    score: EditScorer,
    *,
    protocol: Protocol = "both",
    epsilon: float | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> BenchmarkTable:
    """Load a benchmark of human preferences, score its edits and return the results.

    Args:
        name: Name of the benchmark: "editscore" or "tiger".
        folder: Folder with the files of the benchmark.
        score: Function that scores edits with the verifier.
        protocol: Whether to return metrics under the authors' rule ("published"), this project's rule ("ours") or both.
        epsilon: Largest score difference that counts as a tie in TIGER's benchmark; see :func:`tiger_table`.
        bootstrap: Settings of the bootstrap.

    Raises:
        BenchmarkError: The folder does not contain the benchmark in its published layout.
    """
    if name == "editscore":
        comparisons: list[Comparison] = []

        def rows() -> Iterator[EditScoreRow]:
            for row in load_editscore(folder):
                comparisons.append(comparison(row))
                yield row

        scores = score_editscore(rows(), score)
        table = editscore_table(comparisons, scores, bootstrap)
    else:
        groups = load_tiger(folder)
        table = tiger_table(groups, score_tiger(groups, score), epsilon=epsilon, bootstrap=bootstrap)
    return select_protocol(table, protocol)


def select_protocol(table: BenchmarkTable, protocol: Protocol) -> BenchmarkTable:
    """Return the results under the authors' rule ("published") or this project's rule ("ours").

    Rows without a metric under this rule are dropped. If ``protocol`` is "both", the results are returned unchanged.
    """
    if protocol == "both":
        return table
    other = "ours" if protocol == "published" else "published"
    rows = tuple(row.model_copy(update={other: None}) for row in table.rows if getattr(row, protocol) is not None)
    return table.model_copy(update={"rows": rows, "protocol": protocol})
