"""Write and read tables of nouns: Parquet, streamed, a row group in memory at a time.

The form on disk is described in ``editr1.data.schema``. Rows count from 1 in messages.
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
from editr1.data.pictures import DAMAGE, PictureReader, PictureWriter
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

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 2048
_BATCH_ROWS = 64


def write_table(path: Path, rows: Iterable[N], kind: type[N], *, images: Images = "inline") -> int:
    """Write ``rows`` to the Parquet file ``path`` and return their number.

    The file appears under its name only when it is whole; an exception of ``rows`` leaves an older file as it was.
    With ``images="digest"`` each distinct picture is written once, into ``<stem>.images`` beside it; memory then grows
    by about 100 bytes a distinct picture.

    Raises:
        TypeError: a row is not a ``kind``, or ``kind`` has no table.

    Example:
        ``write_table(Path("cases.parquet"), cases, EditCase)``
    """
    path = Path(path)
    schema = schema_of(kind, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with ExitStack() as stack:
        # The later of two renames is the table's: whoever sees it finds its pictures.
        writer = stack.enter_context(_parquet_writer(path, schema))
        pictures = stack.enter_context(PictureWriter(images_path(path))) if images == "digest" else None
        pending: list[dict[str, Any]] = []
        pending_bytes = 0
        for row in rows:
            if not isinstance(row, kind):
                raise TypeError(f"{path}: row {count + 1}: a {type(row).__name__}, not a {kind.__name__}")
            plain = row.model_dump()
            for _, picture in pictures_in(plain):
                if pictures is not None:
                    pictures.add(picture["sha256"], picture["data"])
                    picture["data"] = None
                else:
                    pending_bytes += len(picture["data"])
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
    """The rows of a table, from number ``start`` (counted from 0) up to, not including, ``stop``.

    The file's kind, version and columns are checked before this returns; each row is checked when it is reached, the
    digest of each picture included.

    Raises:
        TableError: no Parquet file, another kind or version, a missing or unknown column; while iterating, a bad row.
    """
    path = Path(path)
    file, images = _open_table(path, kind)
    pictures = PictureReader(path) if images == "digest" else None
    return _nouns(path, file, kind, pictures, start, file.metadata.num_rows if stop is None else stop)


def count_rows(path: Path) -> int:
    """Number of rows, from the file's footer. Raises TableError when it is no Parquet file."""
    with _open_parquet(Path(path)) as file:
        return int(file.metadata.num_rows)


def read_column(path: Path, name: str) -> list[Any]:
    """The values of a top-level column alone, pictures unread. Raises TableError when it cannot be read."""
    with _open_parquet(Path(path)) as file:
        try:
            values: list[Any] = file.read(columns=[name]).column(name).to_pylist()
        except DAMAGE as error:
            raise TableError(path, None, name, None, f"the file is damaged: {error}") from None
        return values


@dataclass(frozen=True)
class TableFacts:
    """What the footer of a table says."""

    rows: int
    row_groups: int
    version: str
    images: Images


def table_kind(path: Path) -> type[DataModel]:
    """The kind that the file's metadata name, or that its columns fit. Raises TableError."""
    return table_facts(path)[0]


def table_facts(path: Path) -> tuple[type[DataModel], TableFacts]:
    """The kind of a table and what its footer says. Raises TableError when it is no table."""
    path = Path(path)
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
        columns = set(file.schema_arrow.names)
        facts = TableFacts(
            rows=file.metadata.num_rows,
            row_groups=file.metadata.num_row_groups,
            version=metadata.get(SCHEMA_KEY, VERSION.encode()).decode(errors="replace"),
            images="digest" if metadata.get(IMAGES_KEY) == b"digest" else "inline",
        )
    named = metadata.get(KIND_KEY, b"").decode(errors="replace")
    kind = KINDS.get(named) if named else kind_of_columns(columns)
    if kind is None:
        raise TableError(path, None, None, named or sorted(columns), f"not a table of {', '.join(KINDS)}")
    return kind, facts


def kind_of_columns(columns: set[str]) -> type[DataModel] | None:
    """The kind whose required fields are among ``columns`` and which knows all of them; None when there is none."""
    return next((kind for kind in KINDS.values() if _required(kind) <= columns <= set(kind.model_fields)), None)


def read_plain(path: Path, kind: type[DataModel]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows as plain dictionaries, unchecked, with their number from 1; pictures of the ``digest`` form are filled in.

    Raises:
        TableError: as ``read_table`` before the first row.
    """
    path = Path(path)
    file, images = _open_table(path, kind)
    pictures = PictureReader(path) if images == "digest" else None
    for number, row in _plain_rows(path, file, 0, file.metadata.num_rows):
        if pictures is not None:
            for _, picture in pictures_in(row):
                if picture.get("data") is None and picture.get("sha256"):
                    picture["data"] = pictures.get(picture["sha256"])
        yield number, row


def parse_row(path: Path, number: int, row: dict[str, Any], kind: type[N]) -> N:
    """Build a noun from a plain row. Raises TableError that names the first bad field."""
    for place, picture in pictures_in(row):
        wanted, data = picture.pop("sha256", None), picture.get("data")
        if data is not None and wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
            raise TableError(
                path, number, f"{place}.sha256", wanted, f"the picture's bytes have {hashlib.sha256(data).hexdigest()}"
            )
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TableError(path, number, field, first["input"], first["msg"]) from None


def pictures_in(row: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every picture of a plain row (the structs under ``source`` and ``image``) with its dotted field name."""
    for name, child in row.items():
        if isinstance(child, dict):
            if name in ("source", "image"):
                yield f"{place}{name}", child
            else:
                yield from pictures_in(child, f"{place}{name}.")


def _nouns(
    path: Path, file: pq.ParquetFile, kind: type[N], pictures: PictureReader | None, start: int, stop: int
) -> Iterator[N]:
    for number, row in _plain_rows(path, file, start, stop):
        if pictures is not None:
            for place, picture in pictures_in(row):
                data = pictures.get(picture["sha256"])
                if data is None:
                    raise TableError(
                        path, number, f"{place}.sha256", picture["sha256"], f"not in {images_path(path).name}"
                    )
                picture["data"] = data
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
                    raise TableError(path, number + 1, None, None, f"the file is damaged: {error}") from error
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
        fault = TableError(path, None, "editr1.schema", version, f"only {VERSION} is read")
    elif named != kind.__name__:
        fault = TableError(path, None, "editr1.kind", named, f"a table of {kind.__name__} is asked for")
    elif missing := sorted(_required(kind) - columns):
        fault = TableError(
            path, None, missing[0], None, f"this column is missing; present: {', '.join(sorted(columns))}"
        )
    elif unknown := sorted(columns - set(kind.model_fields)):
        fault = TableError(path, None, unknown[0], None, f"unknown column; allowed: {', '.join(kind.model_fields)}")
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
        rule = f"not a Parquet file: {(str(error).splitlines() or [''])[0]}"
        raise TableError(path, None, None, None, rule) from None


@contextmanager
def _parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    pictures, others = leaf_columns(schema)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Encoded pictures neither compress nor repeat within a page, and their minimum and maximum mean nothing.
        compression = dict.fromkeys(others, "zstd") | dict.fromkeys(pictures, "none")
        with pq.ParquetWriter(
            scratch, schema, compression=compression, use_dictionary=others, write_statistics=others
        ) as writer:
            yield writer
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _required(kind: type[DataModel]) -> set[str]:
    return {name for name, field in kind.model_fields.items() if field.is_required()}
