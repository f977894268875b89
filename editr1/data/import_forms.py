"""Read the rows of an import table from any supported format: CSV, JSON Lines, a JSON list, or Parquet.

The rows are returned as dictionaries. ``editr1.data.import_table`` checks their values.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from editr1.data.errors import TableError
from editr1.data.given_json import parse_given_json
from editr1.data.image_file import DAMAGE
from editr1.data.import_columns import check_columns, check_not_votes
from editr1.data.jsonl import read_json_lines, text_encoding

FORMS: Final = "CSV (comma, semicolon or tab), JSON Lines (.jsonl), a JSON list (.json) and Parquet (.parquet)"
"""The supported formats of import tables, for error messages."""
IMAGE_COLUMNS: Final = ("source", "edited")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_BINARY: Final = (b"PK\x03\x04", b"\x1f\x8b", b"ARROW1", b"\xff\xff\xff\xff")
"""First bytes of binary files that are not supported: ZIP archives such as spreadsheets, gzip files, and two Arrow formats."""
_STATED_DELIMITER: Final = re.compile("sep=([,;\t])", re.IGNORECASE)
"""Optional first line of a CSV file that states the delimiter for spreadsheet programs."""
_FIRST_BYTES: Final = 4096
_BATCH_ROWS: Final = 64
_EXAMPLE_ROWS: Final = 20
"""Number of rows at the start of a JSON table whose keys are taken as its columns."""


@dataclass(frozen=True)
class RawRow:
    """A row that has not been validated, or the error that occurred while reading it.

    ``number`` counts from 1. It is the line where the row begins in a text file (``unit`` is "line"), or the position
    of the row in a JSON list or a Parquet file (``unit`` is "row"). In a table with embedded images, the columns
    ``source`` and ``edited`` contain the names that ``EmbeddedImages`` returned.
    """

    number: int
    unit: str
    values: dict[str, Any] | TableError


class EmbeddedImages:
    """The images embedded in a table, stored as files in ``folder``. Each distinct image is stored once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, data: bytes) -> str:
        """Store an image file, and return its name, which is ``sha256:`` followed by its digest."""
        name = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = self._folder / name
        if not path.exists():
            path.write_bytes(data)
        return name

    def path(self, name: str) -> Path | None:
        """Return the file of an image that was added under ``name``, or None if there is none."""
        path = self._folder / name
        return path if name.startswith("sha256:") and "/" not in name and path.is_file() else None


def read_raw_rows(table: Path, embedded: EmbeddedImages) -> Iterator[RawRow]:
    """Yield the non-empty rows of the table in order.

    Parquet is recognised by the content of the file, and the other formats by the suffix. A file with an unknown
    suffix is read as CSV.

    Raises:
        TableError: The file does not exist or has an unsupported format, or its columns are not those of an import
            table.
    """
    start = _first_bytes(table)
    suffix = table.suffix.lower()
    if start.startswith(b"PAR1"):
        rows = _parquet_rows(table, embedded)
    elif start.startswith(_BINARY) or suffix == ".parquet":
        raise TableError(table, None, None, None, f"the file is not a table; tables can be {FORMS}")
    elif b"\0" in start and not start.startswith(_UTF_16):
        rule = f"the file contains NUL bytes, as UTF-16 without a byte order mark does; save it as UTF-8. Tables can be {FORMS}"
        raise TableError(table, None, None, None, rule)
    elif suffix in (".jsonl", ".ndjson") or (suffix == ".json" and _begins_with_object(start)):
        rows = _with_known_columns(table, _json_lines(table))
    elif suffix == ".json":
        rows = _with_known_columns(table, _json_list(table))
    else:
        rows = _csv_rows(table)
    for row in rows:
        if isinstance(row.values, TableError) or not row.values or any(map(_has_value, row.values.values())):
            yield row


def _has_value(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _first_bytes(table: Path) -> bytes:
    if table.is_dir():
        raise TableError(
            table, None, None, None, f"this is a folder; give the path of the table file. Tables can be {FORMS}"
        )
    try:
        with table.open("rb") as file:
            return file.read(_FIRST_BYTES)
    except OSError as error:
        raise TableError(table, None, None, None, error.strerror or str(error)) from None


def _begins_with_object(start: bytes) -> bool:
    """Return True if the first line of a JSON file is a complete object, so that the file is JSON Lines."""
    line, end, _ = start.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not line.startswith(b"{"):
        return False
    try:
        return (not end and len(start) == _FIRST_BYTES) or isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _csv_rows(table: Path) -> Iterator[RawRow]:
    try:
        with table.open(encoding=text_encoding(table), newline="") as file:
            header = file.readline()
            while header and not header.strip():
                header = file.readline()
            file.seek(0)
            stated = _STATED_DELIMITER.fullmatch(header.strip("\r\n"))
            delimiter = stated[1] if stated else max(",;\t", key=header.count)
            yield from _delimited_rows(table, csv.reader(file, delimiter=delimiter, strict=True), bool(stated))
    except UnicodeError:
        raise _not_text(table) from None


def _delimited_rows(table: Path, reader: Any, skip_first: bool) -> Iterator[RawRow]:
    columns: list[str] = []
    begin = 1
    try:
        for cells in reader:
            number, begin = begin, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if skip_first:
                skip_first = False
            elif not columns:
                columns = cells
                check_columns(table, number, columns)
            elif len(cells) != len(columns):
                rule = f"the row has {len(cells)} fields, but the header has {len(columns)}; correct the row"
                yield RawRow(number, "line", TableError(table, number, None, None, rule))
            else:
                yield RawRow(number, "line", dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        if "unexpected end" in str(error):
            rule = "the table is not CSV: a quoted field that begins in this row has no closing quotation mark; add it"
            raise TableError(table, begin, None, None, rule) from None
        if "field larger" in str(error):
            limit = csv.field_size_limit()
            rule = f"a field has more than {limit} characters; shorten it, or add the missing closing quotation mark"
            raise TableError(table, begin, None, None, rule) from None
        rule = f"the table is not CSV: {error}; double every quotation mark inside a quoted field"
        raise TableError(table, reader.line_num, None, None, rule) from None
    if not columns:
        check_columns(table, 1, [])


def _not_text(table: Path) -> TableError:
    """Return the error for a table that is not valid text. It reports the first line that cannot be decoded."""
    if text_encoding(table) == "utf-16":
        return TableError(table, None, None, None, "the table is not valid UTF-16; save it as UTF-8")
    number = None
    with table.open("rb") as file:
        for line_number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                number = line_number
                break
    return TableError(table, number, None, None, "the table is not UTF-8; save it as UTF-8")


def _json_lines(table: Path) -> Iterator[RawRow]:
    for number, row in read_json_lines(table):
        yield RawRow(number, "line", row)


def _json_list(table: Path) -> Iterator[RawRow]:
    try:
        rows = parse_given_json(table.read_text(encoding=text_encoding(table)))
    except UnicodeError:
        raise _not_text(table) from None
    except json.JSONDecodeError as error:
        rule = f"the table is not JSON: {error.msg}; correct it. Tables can be {FORMS}"
        raise TableError(table, error.lineno, None, None, rule) from None
    except (
        ValueError
    ) as error:  # Python's message about an integer with too many digits explains Python's limit after a semicolon.
        raise TableError(table, None, None, None, f"the table is not JSON: {str(error).partition(';')[0]}") from None
    if not isinstance(rows, list):
        rule = f"the file must contain a list of JSON objects, one per edited image; tables can be {FORMS}"
        raise TableError(table, None, None, rows, rule)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield RawRow(number, "row", row)
        else:
            yield RawRow(number, "row", TableError(table, number, None, row, "must be a JSON object"))


def _with_known_columns(table: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Reject a table whose first rows have the columns of pairwise votes."""
    for index, row in enumerate(rows):
        if index < _EXAMPLE_ROWS and isinstance(row.values, dict):
            check_not_votes(table, row.number, [*row.values])
        yield row


def _parquet_rows(table: Path, embedded: EmbeddedImages) -> Iterator[RawRow]:
    number = 0
    try:
        with pq.ParquetFile(table, pre_buffer=False) as file:
            check_columns(table, None, file.schema_arrow.names)
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(number, "row", _with_stored_images(table, number, values, embedded))
    except DAMAGE as error:
        if isinstance(error, TableError):
            raise
        rule = f"the Parquet file is damaged ({error}); create it again"
        raise TableError(table, number + 1, None, None, rule) from None


def _with_stored_images(
    table: Path, number: int, row: dict[str, Any], embedded: EmbeddedImages
) -> dict[str, Any] | TableError:
    """Store the images embedded in ``row`` and replace them with their names.

    An image is a path, the bytes of an image file, or a struct {bytes, path} as stored by the ``Image`` feature of
    Hugging Face Datasets.
    """
    row = dict(row)
    for name in IMAGE_COLUMNS:
        value = row[name]
        if isinstance(value, dict) and {"bytes", "path"} >= value.keys():
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            value = embedded.add(value)
        elif value is not None and not isinstance(value, str):
            rule = (
                "must be a path, the bytes of an image file, or a struct {bytes, path} (the Image feature of "
                "Hugging Face Datasets)"
            )
            return TableError(table, number, name, value, rule)
        row[name] = value
    return row
