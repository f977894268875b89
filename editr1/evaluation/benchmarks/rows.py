"""Readers for the JSON and Parquet files of public benchmarks.

A Parquet file stores an image as a struct with the fields ``bytes`` and ``path``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from editr1.data.given_json import parse_given_json
from editr1.data.rules import instruction_fault
from editr1.data.valid_rows import image_checker
from editr1.errors import Editr1Error, ExitCode


class BenchmarkError(Editr1Error, ValueError):
    """The files of a benchmark do not have the published layout.

    The message gives the file and, if possible, the row and the field.
    """

    exit_code = ExitCode.DATA


class Row(NamedTuple):
    """One row of a Parquet file.

    ``where`` is the file and the number of the row, for error messages. ``folder`` is the folder of the benchmark.
    ``values`` contains the value of each column.
    """

    where: str
    folder: Path
    values: dict[str, Any]


def read_json_object(file: Path, content: str = "a JSON object") -> dict[str, object]:
    """Read a JSON file that contains an object. ``content`` describes the expected object in error messages.

    Raises:
        BenchmarkError: The file cannot be read or does not contain an object.
    """
    try:
        value = parse_given_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: the file cannot be read: {error}; it must contain {content}") from error
    if not isinstance(value, dict):
        raise BenchmarkError(f"{file}: the file must contain {content}, got {type(value).__name__}")
    return value


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a Parquet file. If ``path`` is a folder, read all Parquet files below it, sorted by path.

    Only the columns in ``columns`` and ``optional`` are read.

    Raises:
        BenchmarkError: There is no Parquet file, a file cannot be read, or one of ``columns`` is missing.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BenchmarkError(f"{path}: no Parquet file found; download the benchmark into this folder")
    for file in files:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise BenchmarkError(f"{file}: the Parquet file cannot be read: {error}; download it again") from error
        names = set(table.schema_arrow.names)
        missing = [name for name in columns if name not in names]
        if missing:
            raise BenchmarkError(
                f"{file}: column {missing[0]!r} is missing; the file has the columns {', '.join(sorted(names))}"
            )
        wanted = [name for name in (*columns, *optional) if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=64, columns=wanted):
            for values in batch.to_pylist():
                yield Row(f"{file}, row {number}", path if path.is_dir() else path.parent, values)
                number += 1


def text_field(row: Row, field: str) -> str:
    """Return the value of a string field. Raise BenchmarkError if the field is missing or blank."""
    value = row.values.get(field)
    if not isinstance(value, str) or not value.strip():
        raise BenchmarkError(f"{row.where}: {field} must be a non-empty string, got {value!r:.80}")
    return value


def instruction_field(row: Row, field: str = "instruction") -> str:
    """Return the instruction in a field. Raise BenchmarkError if it violates a rule of :mod:`editr1.data.rules`."""
    value = text_field(row, field)
    if fault := instruction_fault(value):
        raise BenchmarkError(f"{row.where}: {field}: {value!r:.80}: {fault}")
    return value


def image_field(row: Row, field: str) -> bytes:
    """Return the content of the image file in a field. Raise BenchmarkError if the field contains no valid image."""
    return image_bytes(row, field, row.values.get(field))


def image_bytes(row: Row, field: str, value: object) -> bytes:
    """Return the content of an image file, which is decoded to check it.

    ``value`` is this content as bytes, a path in the folder of the benchmark, or a struct with the fields ``bytes`` and
    ``path``, one of which may be empty. ``field`` is the name of the field for error messages.

    Raises:
        BenchmarkError: There is no image, or it violates a rule of :mod:`editr1.data.rules`.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return _checked(row, field, value)
    if isinstance(value, str) and value:
        file = (row.folder / value).resolve()
        if not file.is_relative_to(row.folder.resolve()):
            raise BenchmarkError(
                f"{row.where}: {field} must be a path in the benchmark's folder, but points outside it: {value!r:.120}"
            )
        if file.is_file():
            return _checked(row, field, file.read_bytes())
        raise BenchmarkError(f"{row.where}: {field}: the file {value!r:.120} does not exist; add it")
    raise BenchmarkError(f"{row.where}: {field} must contain an image, but is empty")


def _checked(row: Row, field: str, data: bytes) -> bytes:
    if fault := image_checker().fault(data):
        raise BenchmarkError(f"{row.where}: {field}: {fault}")
    return data
