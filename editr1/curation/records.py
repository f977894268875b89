"""Append-only JSON Lines files that store the results of a curation step, one record per item.

An interrupted step continues with the items that have no record. A record with the field ``failed`` is only valid for
the call that wrote it: a later call processes the item again, because the server may have been repaired.
"""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path
from typing import Any, Self

import orjson

_CHECKSUM = "crc32"

_log = logging.getLogger(__name__)


class RecordFile:
    """An append-only JSONL file of records, which are looked up by id.

    Only ids and file offsets are in memory, so a file can have millions of records. Every line has a checksum. When
    an existing file is opened, an incomplete last line, which a killed process may have left, is removed. Records
    with the field ``failed`` are ignored, and damaged lines are ignored with a warning, so that their items are
    processed again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b")
        self._offsets: dict[str, int] = {}
        self._end = self._scan()

    def _scan(self) -> int:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                record = _parsed(line)
                if "failed" in record:
                    self._offsets.pop(record["id"], None)
                else:
                    self._offsets[record["id"]] = end
            except (ValueError, KeyError, TypeError) as error:
                _log.warning(
                    "%s: line %d is damaged and is ignored; its item is processed again: %s", self.path, number, error
                )
            end += len(line)
        self._file.truncate(end)
        return end

    def __contains__(self, key: str) -> bool:
        return key in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record with the id ``key``, or None if there is none."""
        offset = self._offsets.get(key)
        if offset is None:
            return None
        self._file.seek(offset)
        return _parsed(self._file.readline())

    def put(self, key: str, **values: Any) -> None:
        """Append a record with the id ``key``, and flush it to the operating system."""
        record = {"id": key, **values}
        line = orjson.dumps({**record, _CHECKSUM: zlib.crc32(orjson.dumps(record))}) + b"\n"
        self._file.write(line)
        self._file.flush()
        self._offsets[key] = self._end
        self._end += len(line)

    def close(self) -> None:
        """Flush the file to disk and close it."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the record of a line without its checksum. Raises ValueError or TypeError if the line is damaged."""
    record: dict[str, Any] = orjson.loads(line)
    if not isinstance(record, dict):
        raise TypeError("it is not a record")
    stated = record.pop(_CHECKSUM, None)
    if stated is not None and stated != zlib.crc32(orjson.dumps(record)):
        raise ValueError("it does not match its checksum")
    return record
