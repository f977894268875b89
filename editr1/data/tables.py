"""Read and write Parquet tables of data objects. Only one row group is in memory at a time.

The file format is described in ``editr1.data.schema``. Error messages count rows from 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from editr1.data.errors import TableError
from editr1.data.image_file import DAMAGE, ImageFileReader, ImageFileWriter
from editr1.data.schema import (
    IMAGES_KEY,
    KIND_KEY,
    KINDS,
    SCHEMA_KEY,
    VERSION,
    Images,
    N,
    images_path,
    leaf_columns,
    schema_of,
)
from editr1.data.types import DataModel

IMPORT_HINT = "To convert a CSV, JSON or Parquet table of image files, run 'editr1 data import'"
"""Advice for a file that is not a table of data objects."""
ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 2048
_BATCH_ROWS = 64


def write_table(path: Path, rows: Iterable[N], kind: type[N], *, images: Images = "inline") -> int:
    """Write ``rows`` to the Parquet file ``path`` and return their number.

    The rows are written to a temporary file, which replaces ``path`` when it is complete. If an error occurs while rows are
    written, an existing file ``path`` is not changed. With ``images="digest"``, each distinct image is written once, to
    ``<stem>.images`` next to the table; this needs about 100 bytes of memory per distinct image.

    Raises:
        TypeError: a row is not of type ``kind``, or this type cannot be stored as a table.

    Example:
        ``write_table(Path("cases.parquet"), cases, EditCase)``
    """
    path = Path(path)
    schema = schema_of(kind, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with ExitStack() as stack:
        # The table is renamed after the image file, so that a visible table always has its images.
        writer = stack.enter_context(_parquet_writer(path, schema))
        image_file = stack.enter_context(ImageFileWriter(images_path(path))) if images == "digest" else None
        pending: list[dict[str, Any]] = []
        pending_bytes = 0
        for row in rows:
            if not isinstance(row, kind):
                raise TypeError(f"{path}: row {count + 1} has type {type(row).__name__}, expected {kind.__name__}")
            plain = row.model_dump()
            for _, image in images_in(plain):
                if image_file is not None:
                    image_file.add(image["sha256"], image["data"])
                    image["data"] = None
                else:
                    pending_bytes += len(image["data"])
            pending.append(plain)
            count += 1
            if pending_bytes >= ROW_GROUP_BYTES or len(pending) >= ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(pending, schema=schema))
                pending, pending_bytes = [], 0
        if pending:
            writer.write_table(pa.Table.from_pylist(pending, schema=schema))
    if images == "inline":
        images_path(path).unlink(missing_ok=True)
    return count


def read_table(path: Path, kind: type[N], *, start: int = 0, stop: int | None = None) -> Iterator[N]:
    """Yield the rows of a table from ``start`` (counted from 0) up to, but not including, ``stop``.

    The kind, version and columns of the file are checked before this function returns. Each row, including the digests
    of its images, is checked when it is read.

    Raises:
        TableError: the file is not Parquet, has rows of another data type or another version, or a column is missing
            or unknown. While iterating: a row is invalid.
    """
    path = Path(path)
    file, images = _open_table(path, kind)
    image_file = ImageFileReader(path) if images == "digest" else None
    return _parsed_rows(path, file, kind, image_file, start, file.metadata.num_rows if stop is None else stop)


def count_rows(path: Path) -> int:
    """Return the number of rows of a table without reading them. Raise TableError if it is not a Parquet file."""
    with _open_parquet(Path(path)) as file:
        return int(file.metadata.num_rows)


def read_column(path: Path, name: str) -> list[Any]:
    """Return the values of the top-level column ``name``. Raise TableError if it cannot be read."""
    with _open_parquet(Path(path)) as file:
        try:
            values: list[Any] = file.read(columns=[name]).column(name).to_pylist()
        except DAMAGE as error:
            raise TableError(path, None, name, None, f"the file is damaged ({error}); create the table again") from None
        return values


@dataclass(frozen=True)
class TableInfo:
    """Metadata in the footer of a table: the number of rows and row groups, the format version, and the form in which images are stored."""

    rows: int
    row_groups: int
    version: str
    images: Images


def table_kind(path: Path) -> type[DataModel]:
    """Return the data type of the rows in a table. Raise TableError if the metadata and columns match no data type."""
    return table_info(path)[0]


def table_info(path: Path) -> tuple[type[DataModel], TableInfo]:
    """Return the data type and the metadata of a table. Raise TableError if the file is not a table."""
    path = Path(path)
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
        columns = set(file.schema_arrow.names)
        info = TableInfo(
            rows=file.metadata.num_rows,
            row_groups=file.metadata.num_row_groups,
            version=metadata.get(SCHEMA_KEY, VERSION.encode()).decode(errors="replace"),
            images="digest" if metadata.get(IMAGES_KEY) == b"digest" else "inline",
        )
    named = metadata.get(KIND_KEY, b"").decode(errors="replace")
    kind = KINDS.get(named) if named else kind_of_columns(columns)
    if kind is None:
        raise TableError(
            path,
            None,
            None,
            named or sorted(columns),
            f"must be a table with rows of one of the types: {', '.join(KINDS)}. {IMPORT_HINT}",
        )
    return kind, info


def kind_of_columns(columns: set[str]) -> type[DataModel] | None:
    """Return the data type of a table with these ``columns``, or None if no data type matches.

    The columns must be fields of the data type and include all of its required fields.
    """
    return next((kind for kind in KINDS.values() if _required(kind) <= columns <= set(kind.model_fields)), None)


def read_plain(path: Path, kind: type[DataModel]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, row as a dictionary) without validating the rows. Row numbers count from 1.

    If the table is in ``digest`` form, the bytes of the images are read from its image file.

    Raises:
        TableError: the file is not Parquet, has rows of another data type or another version, or a column is missing
            or unknown.
    """
    path = Path(path)
    file, images = _open_table(path, kind)
    image_file = ImageFileReader(path) if images == "digest" else None
    for number, row in _plain_rows(path, file, 0, file.metadata.num_rows):
        if image_file is not None:
            for _, image in images_in(row):
                if image.get("data") is None and image.get("sha256"):
                    image["data"] = image_file.get(image["sha256"])
        yield number, row


def parse_row(path: Path, number: int, row: dict[str, Any], kind: type[N]) -> N:
    """Convert a row from a dictionary to a data object. If it is invalid, raise TableError for the first invalid field."""
    for place, image in images_in(row):
        wanted, data = image.pop("sha256", None), image.get("data")
        if data is not None and wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
            raise TableError(
                path,
                number,
                f"{place}.sha256",
                wanted,
                f"does not match the image, whose SHA-256 is {hashlib.sha256(data).hexdigest()}; correct it",
            )
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TableError(path, number, field, first["input"], first["msg"]) from None


def images_in(row: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted field name, image) for every image in a row, which is given as nested dictionaries."""
    for name, child in row.items():
        if isinstance(child, dict):
            if name in ("source", "image"):
                yield f"{place}{name}", child
            else:
                yield from images_in(child, f"{place}{name}.")


def _parsed_rows(
    path: Path, file: pq.ParquetFile, kind: type[N], image_file: ImageFileReader | None, start: int, stop: int
) -> Iterator[N]:
    for number, row in _plain_rows(path, file, start, stop):
        if image_file is not None:
            for place, image in images_in(row):
                data = image_file.get(image.get("sha256"))
                if data is None:
                    raise TableError(
                        path,
                        number,
                        f"{place}.sha256",
                        image.get("sha256"),
                        f"the image file {images_path(path).name} has no image with this digest; "
                        "create the table and its image file again",
                    )
                image["data"] = data
        yield parse_row(path, number, row, kind)


def _plain_rows(path: Path, file: pq.ParquetFile, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
    first = 0
    with file:
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first + size > start and first < stop:
                number = first
                try:
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False):
                        for index in range(batch.num_rows):
                            if start <= number < stop:
                                yield number + 1, {name: batch[name][index].as_py() for name in batch.schema.names}
                            number += 1
                except DAMAGE as error:
                    raise TableError(
                        path, number + 1, None, None, f"the file is damaged ({error}); create the table again"
                    ) from error
            first += size


def _open_table(path: Path, kind: type[DataModel]) -> tuple[pq.ParquetFile, Images]:
    schema_of(kind)
    file = _open_parquet(path)
    metadata = file.schema_arrow.metadata or {}
    version = metadata.get(SCHEMA_KEY, VERSION.encode()).decode(errors="replace")
    named = metadata.get(KIND_KEY, kind.__name__.encode()).decode(errors="replace")
    columns = set(file.schema_arrow.names)
    fault: TableError | None = None
    if version != VERSION:
        fault = TableError(path, None, "editr1.schema", version, f"must be {VERSION}")
    elif named != kind.__name__:
        fault = TableError(path, None, "editr1.kind", named, f"must be {kind.__name__}; use a table of this data type")
    elif missing := sorted(_required(kind) - columns):
        fault = TableError(
            path,
            None,
            missing[0],
            None,
            f"this column is missing; the table has the columns: {', '.join(sorted(columns))}",
        )
    elif unknown := sorted(columns - set(kind.model_fields)):
        fault = TableError(
            path, None, unknown[0], None, f"unknown column; allowed columns: {', '.join(kind.model_fields)}"
        )
    if fault is not None:
        file.close()
        raise fault
    return file, "digest" if metadata.get(IMAGES_KEY) == b"digest" else "inline"


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except FileNotFoundError:
        raise TableError(path, None, None, None, "no such file") from None
    except DAMAGE as error:
        rule = f"the file is not a Parquet file: {(str(error).splitlines() or [''])[0]}"
        if path.is_file() and path.suffix.lower() != ".parquet":
            rule = (
                f"the file is not Parquet, but {path.suffix or 'has no suffix'}; tables are read in Parquet (.parquet), and by "
                f"'editr1 data check' also in JSON Lines (.jsonl). {IMPORT_HINT}"
            )
        raise TableError(path, None, None, None, rule) from None


@contextmanager
def _parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    images, others = leaf_columns(schema)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Encoded images do not compress, do not repeat within a page, and have no meaningful minimum and maximum.
        compression = dict.fromkeys(others, "zstd") | dict.fromkeys(images, "none")
        with pq.ParquetWriter(
            scratch, schema, compression=compression, use_dictionary=others, write_statistics=others
        ) as writer:
            yield writer
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _required(kind: type[DataModel]) -> set[str]:
    return {name for name, field in kind.model_fields.items() if field.is_required()}
