"""Write and parse the JSON records of a run, such as ``result.json`` and ``job.json``. They have a checksum (editr1.checksums)."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from editr1.artifacts import ArtifactStore
from editr1.artifacts.errors import StoreError
from editr1.artifacts.reliable import read_again
from editr1.checksums import dump_checked, has_checksum, load_checked
from editr1.errors import ExitCode

M = TypeVar("M", bound=BaseModel)

log = logging.getLogger("editr1.runs")


class DamagedRecord(StoreError):
    """A record is empty, truncated or changed, does not have the expected format, or belongs to a different stage or run."""

    exit_code = ExitCode.INPUT


class RecordOfOtherVersion(DamagedRecord):
    """A record does not have the expected format, but matches its checksum, so another version of editr1 wrote it."""


def dump_stored(record: BaseModel) -> bytes:
    """Return the JSON text of a record, with its checksum, in the format that :func:`parse_stored` reads."""
    return dump_checked(json.loads(record.model_dump_json()))


def parse_stored(kind: type[M], data: bytes, where: str, *, remedy: str, ignore_unknown: bool = False) -> M:
    """Parse the JSON text of a record, and compare it with its checksum if it has one.

    Args:
        kind: model of the record.
        data: the JSON text.
        where: URL of the store and key of the record, or path of the file, for the error message.
        remedy: what the user can do about a damaged record, for the error message.
        ignore_unknown: whether fields that this version does not know are ignored. Only a caller that does not write the record
            back, and that does not decide whether work is complete, may ignore them.

    Raises:
        RecordOfOtherVersion: the text matches its checksum, but is not a record of this kind.
        DamagedRecord: the text is not a record of this kind, or does not match its checksum.
    """
    try:
        return kind.model_validate_json(json.dumps(load_checked(data)), extra="ignore" if ignore_unknown else None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg']}" if field else first["msg"]
        if has_checksum(data):
            raise RecordOfOtherVersion(
                f"{where}: another version of editr1 wrote the record: {reason}; use that version, or {remedy}"
            ) from None
    except ValueError as error:
        reason = str(error)
    raise DamagedRecord(f"{where}: the record is damaged ({len(data)} bytes): {reason}; {remedy}")


def read_stored(
    store: ArtifactStore, kind: type[M], key: str, *, remedy: str, ignore_unknown: bool = False
) -> M | None:
    """Read and parse a record.

    Returns None if there is no record. A damaged record is read again before an exception is raised. For ``ignore_unknown``, see
    :func:`parse_stored`.

    Raises:
        DamagedRecord: see :func:`parse_stored`.
    """

    def read() -> M | None:
        data = store.get_record(key)
        if data is None:
            return None
        where = f"{store.url}: records/{key}"
        return parse_stored(kind, data, where, remedy=remedy, ignore_unknown=ignore_unknown)

    return read_again(read, DamagedRecord)


@lru_cache(maxsize=1000)
def warn_once(message: str) -> None:
    """Log a warning, but only once per process for each text."""
    log.warning("%s", message)
