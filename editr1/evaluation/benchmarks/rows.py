"""Rows of a published set: Parquet as the Hugging Face hub serves it, with pictures as {bytes, path}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from editr1.errors import Editr1Error, ExitCode


class BenchmarkError(Editr1Error, ValueError):
    """The set does not have its published layout; the message names file, row and field."""

    exit_code = ExitCode.DATA


class Row(NamedTuple):
    """One row and where it stands, for messages."""

    where: str
    folder: Path
    values: dict[str, Any]


def json_object(file: Path, what: str = "a JSON object") -> dict[str, object]:
    """The object in a JSON file. Raises BenchmarkError that says what belongs there."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file}: {error}; put there {what}") from error
    if not isinstance(value, dict):
        raise BenchmarkError(f"{file}: must be an object, got {type(value).__name__}")
    return value


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of one Parquet file, or of all below a folder in order of their names, streamed.

    Raises:
        BenchmarkError: no Parquet file, a broken one, or a column of ``columns`` missing.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BenchmarkError(f"{path}: no Parquet file is there")
    for file in files:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise BenchmarkError(f"{file}: not a readable Parquet file: {error}") from error
        names = set(table.schema_arrow.names)
        missing = [name for name in columns if name not in names]
        if missing:
            raise BenchmarkError(f"{file}: column {missing[0]!r} is missing; it has {', '.join(sorted(names))}")
        wanted = [name for name in (*columns, *optional) if name in names]
        number = 0
        for batch in table.iter_batches(batch_size=64, columns=wanted):
            for values in batch.to_pylist():
                yield Row(f"{file}, row {number}", path if path.is_dir() else path.parent, values)
                number += 1


def text(row: Row, field: str) -> str:
    """A field that must be a text and not empty."""
    value = row.values.get(field)
    if not isinstance(value, str) or not value.strip():
        raise BenchmarkError(f"{row.where}: {field} must be a text, got {value!r:.80}")
    return value


def picture(row: Row, field: str) -> bytes:
    """The bytes of a picture field."""
    return picture_bytes(row, field, row.values.get(field))


def picture_bytes(row: Row, field: str, value: object) -> bytes:
    """A picture value: raw bytes, the hub's ``{"bytes", "path"}``, or a path below the set's folder."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str) and value:
        file = (row.folder / value).resolve()
        if not file.is_relative_to(row.folder.resolve()):
            raise BenchmarkError(f"{row.where}: {field} leads out of the set's folder: {value!r:.120}")
        if file.is_file():
            return file.read_bytes()
        raise BenchmarkError(f"{row.where}: {field}: no such file {value!r:.120}")
    raise BenchmarkError(f"{row.where}: {field} holds no picture")
