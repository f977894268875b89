"""Read the rows of a table and validate each row with the rules in :mod:`editr1.data.rules`.

Stages read their inputs with these functions before they start expensive work. An invalid row is reported with its
file, row and field.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from editr1.data.errors import TableError
from editr1.data.rules import DEFAULT, Limits, ParseTrace, Violation, image_fault, images_of, row_violations
from editr1.data.schema import N
from editr1.data.tables import read_table
from editr1.data.types import DataModel

_MAX_REMEMBERED_DIGESTS: Final = 100_000
_ROWS_AHEAD: Final = 16
"""Number of rows read ahead into memory so that their images can be decoded in parallel."""


class ImageChecker:
    """Checks image files against the rules. Each distinct valid image is decoded only once. Thread-safe."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._valid: set[bytes] = set()

    def fault(self, data: bytes) -> str | None:
        """Decode an image file completely, and return the rule that it violates, or None if it is valid."""
        digest = hashlib.sha256(data).digest()
        if digest in self._valid:
            return None
        fault = image_fault(data, self._limits)
        if fault is None:
            if len(self._valid) >= _MAX_REMEMBERED_DIGESTS:
                self._valid.clear()
            self._valid.add(digest)
        return fault


@lru_cache(maxsize=4)
def image_checker(limits: Limits = DEFAULT) -> ImageChecker:
    """Return the image checker for these limits.

    The process shares it, so that the images of a table that is read twice are decoded once.
    """
    return ImageChecker(limits)


def read_valid_rows(
    path: Path,
    kind: type[N],
    *,
    needs_principles: bool = False,
    parse: ParseTrace | None = None,
    decode_images: bool = True,
    limits: Limits = DEFAULT,
) -> Iterator[tuple[int, N]]:
    """Yield (row number, row) for each row of a table. Row numbers count from 1.

    Args:
        path: Parquet table.
        kind: Data type of the rows.
        needs_principles: Whether every case must have a principle; see :func:`editr1.data.rules.row_violations`.
        parse: Trace parser. If it is given, it must accept the trace of an SFT row.
        decode_images: Whether to decode every distinct image, in parallel. If False, only the image headers are read.
        limits: Limits of the images.

    Raises:
        TableError: The file is not a table of this kind. While iterating: a row violates a rule.
    """
    rows = enumerate(read_table(path, kind), start=1)
    checker = image_checker(limits)

    def fault_of(data: bytes) -> str | None:
        return checker.fault(data) if decode_images else image_fault(data, limits, decode=False)

    def first_image_fault(row: DataModel) -> Violation | None:
        for field, image in images_of(row):
            if fault := fault_of(image.data):
                return Violation(field, image.data, fault)
        return None

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="editr1-check") as pool:
        while True:
            part, error = _next_rows(rows)
            for (number, row), fault in zip(part, pool.map(first_image_fault, [row for _, row in part]), strict=True):
                found = next(row_violations(row, needs_principles=needs_principles, parse=parse), fault)
                if found is not None:
                    raise TableError(path, number, *found)
                yield number, row
            if error is not None:
                raise error
            if not part:
                return


def check_table(
    path: Path,
    kind: type[DataModel],
    *,
    needs_principles: bool = False,
    parse: ParseTrace | None = None,
    limits: Limits = DEFAULT,
) -> int:
    """Validate every row of a table as :func:`read_valid_rows` does, and return the number of rows."""
    return sum(1 for _ in read_valid_rows(path, kind, needs_principles=needs_principles, parse=parse, limits=limits))


def _next_rows(rows: Iterator[tuple[int, N]]) -> tuple[list[tuple[int, N]], TableError | None]:
    """Return the next rows, and the error that stopped the iteration, or None."""
    part: list[tuple[int, N]] = []
    try:
        for row in islice(rows, _ROWS_AHEAD):
            part.append(row)
    except TableError as error:
        return part, error
    return part, None
