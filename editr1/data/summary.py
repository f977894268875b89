"""Compute summary statistics of a table, for example the number of cases and the image sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from editr1.data.errors import shorten
from editr1.data.images import ImageError, image_size
from editr1.data.schema import images_path
from editr1.data.tables import images_in, read_table, table_info
from editr1.data.types import Category, DataModel, EditCase, PreferencePair, Quadruple, SftRow


@dataclass(frozen=True)
class TableSummary:
    """Summary of a table.

    ``rows`` counts the whole table; the fields after ``scanned`` cover only the first ``scanned`` rows.
    ``image_sides`` contains the smallest and the largest side of all images in pixels. ``instruction_length`` and
    ``trace_length`` are (minimum, mean, maximum) in characters, or None if the data type has no such field. ``first``
    contains the first rows as dictionaries from dotted field names to shortened values.
    """

    file: str
    kind: str
    version: str
    images: str
    rows: int
    row_groups: int
    file_bytes: int
    image_file_bytes: int
    scanned: int
    distinct_cases: int
    principles: dict[str, int]
    editors: dict[str, int]
    labels: dict[str, int]
    image_count: int
    image_bytes: int
    image_sides: tuple[int, int] | None
    instruction_length: tuple[int, float, int] | None
    trace_length: tuple[int, float, int] | None
    first: list[dict[str, str]]


def summarise(path: Path, *, first: int = 3, scan: int = 10_000) -> TableSummary:
    """Compute the summary of a Parquet table with rows of any data type.

    At most ``scan`` rows are read. The first ``first`` rows are included in the summary.

    Raises:
        TableError: the file is not a table, or one of the rows that are read is invalid.
    """
    path = Path(path)
    kind, info = table_info(path)
    tally = _Tally()
    shown: list[dict[str, str]] = []
    for row in islice(read_table(path, kind), scan):
        tally.add(row)
        if len(shown) < first:
            shown.append(dict(_flat(row.model_dump())))
    image_file = images_path(path)
    return TableSummary(
        file=str(path),
        kind=kind.__name__,
        version=info.version,
        images=info.images,
        rows=info.rows,
        row_groups=info.row_groups,
        file_bytes=path.stat().st_size,
        image_file_bytes=image_file.stat().st_size if info.images == "digest" and image_file.is_file() else 0,
        scanned=tally.rows,
        distinct_cases=len(tally.cases),
        principles={str(category): tally.principles[category] for category in Category},
        editors=dict(tally.editors.most_common()),
        labels=dict(tally.labels),
        image_count=tally.image_count,
        image_bytes=tally.image_bytes,
        image_sides=(min(tally.sides), max(tally.sides)) if tally.sides else None,
        instruction_length=_spread(tally.instructions),
        trace_length=_spread(tally.traces),
        first=shown,
    )


class _Tally:
    def __init__(self) -> None:
        self.rows = self.image_count = self.image_bytes = 0
        self.cases: set[str] = set()
        self.principles: Counter[Category] = Counter()
        self.editors: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.sides: set[int] = set()
        self.instructions: list[int] = []
        self.traces: list[int] = []

    def add(self, row: DataModel) -> None:
        self.rows += 1
        quadruple = row.quadruple if isinstance(row, SftRow) else row
        if isinstance(row, SftRow):
            self.traces.append(len(row.trace))
        if isinstance(quadruple, Quadruple):
            self.editors[quadruple.candidate.editor] += 1
            self._case(quadruple.case)
        elif isinstance(row, PreferencePair):
            self.editors.update([row.winner.editor, row.loser.editor])
            self.labels[row.label] += 1
            self._case(row.case)
        elif isinstance(row, EditCase):
            self._case(row)
        for _, image in images_in(row.model_dump()):
            self.image_count += 1
            self.image_bytes += len(image["data"])
            try:
                self.sides.update(image_size(image["data"]))
            except ImageError:
                continue  # invalid images are reported by `data check`

    def _case(self, case: EditCase) -> None:
        self.instructions.append(len(case.instruction))
        if case.case_id not in self.cases:
            self.cases.add(case.case_id)
            self.principles.update(principle.category for principle in case.principles)


def _spread(values: list[int]) -> tuple[int, float, int] | None:
    return (min(values), sum(values) / len(values), max(values)) if values else None


def _flat(value: Any, place: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for name, child in value.items() for pair in _flat(child, f"{place}.{name}" if place else name)]
    if isinstance(value, list | tuple):
        return [(place, f"{len(value)} entries"), *(_flat(value[0], f"{place}.0") if value else [])]
    return [(place, value if isinstance(value, str) and len(value) <= 80 else shorten(value))]
