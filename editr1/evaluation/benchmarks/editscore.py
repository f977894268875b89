"""EditScore's EditReward-Bench (arXiv 2509.23909): comparisons of two edits by human annotators.

The table "EditReward-Bench" in the Edit-R1 paper (arXiv 2604.27505) reports results on this benchmark. Each row is
one comparison. The columns ``key`` and ``output_images`` are lists with two entries, and the first entry belongs to
the better edit. The other columns are ``instruction``, ``input_image``, ``task_type`` (13 types) and ``dimension``
("prompt_following", "consistency" or "overall"). Edits are resized to the size of the source image before scoring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from editr1.data.images import resized_to
from editr1.evaluation.benchmarks.edit_scorer import BenchmarkEdit, EditScorer
from editr1.evaluation.benchmarks.rows import (
    BenchmarkError,
    image_bytes,
    image_field,
    instruction_field,
    read_rows,
    text_field,
)
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, macro_mean, mean_estimate, pair_credit
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable
from editr1.evaluation.resampling import first_distinct

Dimension = Literal["prompt_following", "consistency", "overall"]
_COLUMNS = ("key", "instruction", "input_image", "output_images", "task_type", "dimension")


class EditScoreRow(NamedTuple):
    """A comparison of two edits. ``outputs`` contains the image files of the two edits; the better edit is first.

    ``keys`` identifies the two edits, in the same order. An edit can occur in several rows.
    """

    keys: tuple[str, str]
    instruction: str
    source: bytes
    outputs: tuple[bytes, bytes]
    task_type: str
    dimension: Dimension


def load_editscore(path: Path) -> Iterator[EditScoreRow]:
    """Yield the rows of the benchmark. ``path`` is a local folder or a Parquet file.

    Raises:
        BenchmarkError: The files do not have the published layout.
    """
    for row in read_rows(path, _COLUMNS):
        keys, outputs, dimension = row.values["key"], row.values["output_images"], text_field(row, "dimension")
        if not isinstance(keys, list) or len(keys) != 2 or not isinstance(outputs, list) or len(outputs) != 2:
            raise BenchmarkError(f"{row.where}: the columns 'key' and 'output_images' must be lists of two entries")
        if dimension not in get_args(Dimension):
            allowed = ", ".join(get_args(Dimension))
            raise BenchmarkError(f"{row.where}: dimension must be one of {allowed}, got {dimension!r}")
        first, second = (image_bytes(row, "output_images", value) for value in outputs)
        yield EditScoreRow(
            (str(keys[0]), str(keys[1])),
            instruction_field(row),
            image_field(row, "input_image"),
            (first, second),
            text_field(row, "task_type"),
            cast(Dimension, dimension),
        )


def score_editscore(
    rows: Iterable[EditScoreRow], score: EditScorer, *, batch_size: int = 64
) -> dict[str, float | None]:
    """Resize every distinct edit to the size of its source image, and score it once.

    Return a mapping from the key of an edit to its score. A score is None if scoring failed.
    """
    scores: dict[str, float | None] = {}
    pending: dict[str, BenchmarkEdit] = {}

    def flush() -> None:
        if pending:
            scores.update(zip(pending, score(list(pending.values())), strict=True))
            pending.clear()

    for row in rows:
        for key, output in zip(row.keys, row.outputs, strict=True):
            if key not in scores and key not in pending:
                pending[key] = BenchmarkEdit(row.source, resized_to(output, row.source), row.instruction)
        if len(pending) >= batch_size:
            flush()
    flush()
    return scores


class Comparison(NamedTuple):
    """A comparison of two edits: a row of EditScore's EditReward-Bench without its images.

    ``source`` is the SHA-256 of the source image's file.
    """

    keys: tuple[str, str]
    task_type: str
    dimension: Dimension
    source: str = ""


def comparison(row: EditScoreRow) -> Comparison:
    """Convert a row to a comparison without images, because the images of all rows may not fit into memory."""
    return Comparison(row.keys, row.task_type, row.dimension, hashlib.sha256(row.source).hexdigest())


def editscore_table(
    rows: Sequence[EditScoreRow | Comparison], scores: Mapping[str, float | None], bootstrap: Bootstrap = DEFAULT
) -> BenchmarkTable:
    """Return the accuracy per dimension and, for the dimension "overall", also per task type.

    A comparison is correct if the better edit has the higher score. The published rule counts ties and missing scores
    as wrong and averages the accuracy over task types. Our rule averages over all comparisons in which both edits have
    a score. It counts ties as wrong in the row of the dimension, and as half correct in the row "half credit" below it.
    It excludes and counts comparisons with a missing score, except in the row "failed as wrong", where they count as
    wrong. A row has no value if none of its comparisons has both scores.

    Comparisons of edits of one source image are resampled together. If all rows have the same source image,
    comparisons that share an edit are resampled together instead.
    """
    comparisons = [comparison(row) if isinstance(row, EditScoreRow) else row for row in rows]
    groups = dict(zip(comparisons, _groups(comparisons), strict=True))
    found: list[BenchmarkRow] = []
    missing = 0
    for dimension in get_args(Dimension):
        selected = [row for row in comparisons if row.dimension == dimension]
        if not selected:
            found.append(BenchmarkRow(name=dimension))
            continue
        pairs = [(scores.get(row.keys[0]), scores.get(row.keys[1])) for row in selected]
        types, names = [row.task_type for row in selected], [groups[row] for row in selected]
        credit = [float(a is not None and b is not None and a > b) for a, b in pairs]
        scored = [(a, b, name) for (a, b), name in zip(pairs, names, strict=True) if a is not None and b is not None]
        missing += len(pairs) - len(scored)
        failed = [name for pair, name in zip(pairs, names, strict=True) if None in pair]
        strict, half, with_failed = _our_accuracy(scored, failed, bootstrap)
        count = len(set(types))
        found.append(
            BenchmarkRow(
                name=dimension,
                published=macro_mean(credit, types, bootstrap, names) if scored else None,
                ours=strict,
                note=f"Published rule: mean accuracy over {count} type{'s' if count > 1 else ''}. "
                "Our rule: accuracy over all pairs in which both edits have a score; ties count as wrong.",
            )
        )
        found.append(BenchmarkRow(name=f"{dimension}, half credit", ours=half))
        found.append(BenchmarkRow(name=f"{dimension}, failed as wrong", ours=with_failed))
        if dimension == "overall":
            for kind in sorted(set(types)):
                of_kind = [i for i, t in enumerate(types) if t == kind]
                values, chosen = [credit[i] for i in of_kind], [names[i] for i in of_kind]
                known = any(None not in pairs[i] for i in of_kind)
                accuracy = mean_estimate(values, bootstrap, chosen) if known else None
                found.append(BenchmarkRow(name=f"overall: {kind}", published=accuracy))
    return BenchmarkTable(
        name="EditScore's EditReward-Bench", rows=tuple(found), scale=100.0, unit="%", missing=missing
    )


def _groups(rows: Sequence[Comparison]) -> list[str]:
    return first_distinct([row.source for row in rows], _sharing_an_edit(rows))


def _sharing_an_edit(rows: Sequence[Comparison]) -> list[str]:
    """Return one group name per row. Rows that are linked by common edits have the same name."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, second in (row.keys for row in rows):
        parent[root(second)] = root(first)
    return [root(row.keys[0]) for row in rows]


def _our_accuracy(
    pairs: Sequence[tuple[float, float, str]], failed: Sequence[str], bootstrap: Bootstrap
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return three accuracies: strict, with half credit for ties, and strict with failed pairs counted as wrong.

    Each entry of ``pairs`` consists of two scores and the bootstrap group of the pair. ``failed`` contains the
    bootstrap group of each failed pair.
    """
    if not pairs:
        return None, None, None
    won, lost, groups = [a for a, _, _ in pairs], [b for _, b, _ in pairs], [name for _, _, name in pairs]
    strict, half = (pair_credit(won, lost, kind) for kind in ("strict", "half_credit"))
    with_failed = np.concatenate([strict, np.zeros(len(failed))])
    return (
        mean_estimate(strict, bootstrap, groups),
        mean_estimate(half, bootstrap, groups),
        mean_estimate(with_failed, bootstrap, [*groups, *failed]),
    )
