"""EditScore's EditReward-Bench (arXiv 2509.23909), the set of the paper's table "EditReward-Bench".

Rows: key[2], instruction, input_image, output_images[2] of which the first is the better, task_type (13 of them),
dimension (prompt_following, consistency, overall). Edits are resized to the source's size before scoring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from editr1.data.images import resized_to
from editr1.evaluation.benchmarks.rating import Rate, RatedEdit
from editr1.evaluation.benchmarks.rows import BenchmarkError, picture, picture_bytes, read_rows, text
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, macro_mean, mean_estimate, pair_credit
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable

Dimension = Literal["prompt_following", "consistency", "overall"]
_COLUMNS = ("key", "instruction", "input_image", "output_images", "task_type", "dimension")


class EditScoreRow(NamedTuple):
    """One comparison; ``outputs[0]`` is the better edit. ``keys`` name the edits: one edit is in several rows."""

    keys: tuple[str, str]
    instruction: str
    source: bytes
    outputs: tuple[bytes, bytes]
    task_type: str
    dimension: Dimension


def load_editscore(path: Path) -> Iterator[EditScoreRow]:
    """Stream the rows of a local folder or Parquet file. Raises BenchmarkError on another layout."""
    for row in read_rows(path, _COLUMNS):
        keys, outputs, dimension = row.values["key"], row.values["output_images"], text(row, "dimension")
        if not isinstance(keys, list) or len(keys) != 2 or not isinstance(outputs, list) or len(outputs) != 2:
            raise BenchmarkError(f"{row.where}: key and output_images must hold two entries each")
        if dimension not in get_args(Dimension):
            allowed = ", ".join(get_args(Dimension))
            raise BenchmarkError(f"{row.where}: dimension {dimension!r} is unknown; allowed: {allowed}")
        first, second = (picture_bytes(row, "output_images", value) for value in outputs)
        yield EditScoreRow(
            (str(keys[0]), str(keys[1])),
            text(row, "instruction"),
            picture(row, "input_image"),
            (first, second),
            text(row, "task_type"),
            cast(Dimension, dimension),
        )


def rate_editscore(rows: Iterable[EditScoreRow], rate: Rate, *, batch: int = 64) -> dict[str, float | None]:
    """Score every distinct edit once, resized to its source's size; the result maps its key to the score or None."""
    scores: dict[str, float | None] = {}
    waiting: dict[str, RatedEdit] = {}

    def flush() -> None:
        if waiting:
            scores.update(zip(waiting, rate(list(waiting.values())), strict=True))
            waiting.clear()

    for row in rows:
        for key, output in zip(row.keys, row.outputs, strict=True):
            if key not in scores and key not in waiting:
                waiting[key] = RatedEdit(row.source, resized_to(output, row.source), row.instruction)
        if len(waiting) >= batch:
            flush()
    flush()
    return scores


class Comparison(NamedTuple):
    """A row without its pictures."""

    keys: tuple[str, str]
    task_type: str
    dimension: Dimension


def editscore_table(
    rows: Sequence[EditScoreRow | Comparison], scores: Mapping[str, float | None], bootstrap: Bootstrap = DEFAULT
) -> BenchmarkTable:
    """Accuracy by dimension and by type.

    Published: a tie is wrong, a missing score too, accuracy a type, then the mean of the types. Ours: over all
    comparisons that have both scores, strict and with half credit; missing scores are counted.
    """
    found: list[BenchmarkRow] = []
    missing = 0
    for dimension in get_args(Dimension):
        some = [row for row in rows if row.dimension == dimension]
        if not some:
            found.append(BenchmarkRow(name=dimension))
            continue
        pairs = [(scores.get(row.keys[0]), scores.get(row.keys[1])) for row in some]
        types = [row.task_type for row in some]
        credit = [float(a is not None and b is not None and a > b) for a, b in pairs]
        kept = [(a, b) for a, b in pairs if a is not None and b is not None]
        missing += len(pairs) - len(kept)
        strict, half = _ours(kept, bootstrap)
        count = len(set(types))
        found.append(
            BenchmarkRow(
                name=dimension,
                published=macro_mean(credit, types, bootstrap),
                ours=strict,
                note=f"published: mean of {count} type{'s' if count > 1 else ''}; ours: over all pairs, strict",
            )
        )
        found.append(BenchmarkRow(name=f"{dimension}, half credit", ours=half))
        if dimension == "overall":
            for kind in sorted(set(types)):
                values = [c for c, t in zip(credit, types, strict=True) if t == kind]
                found.append(BenchmarkRow(name=f"overall: {kind}", published=mean_estimate(values, bootstrap)))
    return BenchmarkTable(
        name="EditScore's EditReward-Bench", rows=tuple(found), scale=100.0, unit="%", missing=missing
    )


def _ours(pairs: Sequence[tuple[float, float]], bootstrap: Bootstrap) -> tuple[Estimate, Estimate] | tuple[None, None]:
    if not pairs:
        return None, None
    won, lost = [a for a, _ in pairs], [b for _, b in pairs]
    strict, half = (pair_credit(won, lost, kind) for kind in ("strict", "half_credit"))
    return mean_estimate(strict, bootstrap), mean_estimate(half, bootstrap)
