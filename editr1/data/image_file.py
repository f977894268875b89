"""Read and write the image file of a table in ``digest`` form.

Such a table contains only the digests of its images (see ``editr1.data.schema``). The image file is a second Parquet
file with one row ``{sha256, data}`` per distinct image.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from editr1.data.errors import TableError
from editr1.data.schema import IMAGES_SCHEMA, images_path

GROUP_BYTES = 4 << 20
_CACHED_GROUPS = 8
DAMAGE = (pa.ArrowException, OSError, KeyError, ValueError)
"""Exceptions that pyarrow raises for a damaged Parquet file."""


class ImageFileWriter:
    """Writer for an image file, which stores each distinct image once.

    The images are written to a temporary file, which is renamed to ``path`` when the ``with`` block ends without an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._seen: set[bytes] = set()
        self._pending: list[dict[str, object]] = []
        self._bytes = 0

    def __enter__(self) -> ImageFileWriter:
        self._writer = pq.ParquetWriter(
            self._scratch, IMAGES_SCHEMA, compression="none", use_dictionary=False, write_statistics=["sha256"]
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                os.replace(self._scratch, self._path)
        finally:
            self._scratch.unlink(missing_ok=True)

    def add(self, sha256: str, data: bytes) -> None:
        """Add an image if it is not in the file yet."""
        key = bytes.fromhex(sha256)
        if key in self._seen:
            return
        self._seen.add(key)
        self._pending.append({"sha256": sha256, "data": data})
        self._bytes += len(data)
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=IMAGES_SCHEMA))
        self._pending, self._bytes = [], 0


class ImageFileReader:
    """Reader for an image file, which looks up images by digest.

    It holds all digests and the eight most recently used row groups (4 MiB each) in memory.
    """

    def __init__(self, table: Path) -> None:
        path = images_path(table)
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False)
            self._group_of = {
                bytes.fromhex(name): group
                for group in range(self._file.metadata.num_row_groups)
                for name in self._file.read_row_group(group, columns=["sha256"])["sha256"].to_pylist()
            }
        except FileNotFoundError:
            raise TableError(
                table,
                None,
                "editr1.images",
                "digest",
                f"the image file {path.name} is missing; copy it next to the table",
            ) from None
        except DAMAGE as error:
            raise _damaged(path, error) from None
        self._path = path
        self._groups: OrderedDict[int, dict[str, bytes]] = OrderedDict()

    def get(self, sha256: object) -> bytes | None:
        """Return the stored bytes of an image, or None if the file does not contain it or ``sha256`` is not a digest."""
        if not isinstance(sha256, str):
            return None
        try:
            group = self._group_of.get(bytes.fromhex(sha256))
        except ValueError:
            return None
        if group is None:
            return None
        if group not in self._groups:
            try:
                rows = self._file.read_row_group(group, use_threads=False).to_pylist()
                self._groups[group] = {row["sha256"]: row["data"] for row in rows}
            except DAMAGE as error:
                raise _damaged(self._path, error) from None
            if len(self._groups) > _CACHED_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group].get(sha256)


def _damaged(path: Path, error: Exception) -> TableError:
    return TableError(
        path,
        None,
        None,
        None,
        f"this is not an image file that belongs to a table: {(str(error).splitlines() or [''])[0]}",
    )
