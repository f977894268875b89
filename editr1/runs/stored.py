"""Write and parse the JSON records of a run, such as ``result.json`` and ``job.json``.

Every record has a checksum of its content in the member ``checksum``, so that a changed byte is found when the record is read.
Records without a checksum are accepted: the job file of a chart has none, and neither have records of earlier versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from editr1.artifacts import ArtifactStore
from editr1.artifacts.errors import StoreError
from editr1.artifacts.reliable import read_again
from editr1.errors import ExitCode

M = TypeVar("M", bound=BaseModel)
_CHECKSUM = "checksum"

log = logging.getLogger("editr1.runs")


class DamagedRecord(StoreError):
    """A record is empty, truncated, changed, not of the expected form, or belongs to another stage or run."""

    exit_code = ExitCode.INPUT


def dump_stored(record: BaseModel) -> bytes:
    """Return the JSON text of a record with its checksum. :func:`parse_stored` reads it."""
    content: dict[str, Any] = json.loads(record.model_dump_json())
    return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2, ensure_ascii=False).encode()


def parse_stored(kind: type[M], data: bytes, where: str, *, remedy: str) -> M:
    """Parse the JSON text of a record, and compare it with its checksum if it has one.

    Args:
        kind: model of the record.
        data: the JSON text.
        where: URL of the store and key of the record, or path of the file, for the message.
        remedy: what the user can do, for the message.

    Raises:
        DamagedRecord: the text is not a record of this kind, or does not match its checksum.
    """
    try:
        return kind.model_validate_json(json.dumps(load_checked(data)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg']}" if field else first["msg"]
    except ValueError as error:
        reason = str(error)
    raise DamagedRecord(f"{where}: the record is damaged ({len(data)} bytes): {reason}; {remedy}")


def read_stored(store: ArtifactStore, kind: type[M], key: str, *, remedy: str) -> M | None:
    """Read and parse a record. Returns None if there is none. It is read again before it is called damaged.

    Raises:
        DamagedRecord: see :func:`parse_stored`.
    """

    def read() -> M | None:
        data = store.get_record(key)
        return None if data is None else parse_stored(kind, data, f"{store.url}: records/{key}", remedy=remedy)

    return read_again(read, DamagedRecord)


def load_checked(data: bytes) -> Any:
    """Return the JSON value of a record without its checksum. Raises ValueError if it is not JSON or the checksum differs."""
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if isinstance(content, dict) and _CHECKSUM in content:
        stated = content.pop(_CHECKSUM)
        if stated != _checksum(content):
            raise ValueError("the content was changed after it was written: it does not match its checksum")
    return content


@lru_cache(maxsize=1000)
def warn_once(message: str) -> None:
    """Log a warning. A process that reads the same damaged record again does not repeat it."""
    log.warning("%s", message)


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
