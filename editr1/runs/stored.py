"""Parse records that are read from the artifact store. A damaged one is named, with what to do."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from editr1.artifacts.errors import StoreError
from editr1.errors import ExitCode

M = TypeVar("M", bound=BaseModel)


class DamagedRecord(StoreError):
    """A record in the artifact store is empty, cut off, or not of the expected form."""

    exit_code = ExitCode.INPUT


def parse_stored(kind: type[M], data: bytes, where: str, *, remedy: str) -> M:
    """Parse the JSON text of a record.

    Args:
        kind: model of the record.
        data: the JSON text.
        where: URL of the store and key of the record, for the message.
        remedy: what the user can do, for the message.

    Raises:
        DamagedRecord: the text is not a record of this kind.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = f"{field}: {first['msg']}" if field else first["msg"]
        raise DamagedRecord(f"{where}: the record is damaged ({len(data)} bytes): {reason}; {remedy}") from None
