"""Read and write JSON objects with a checksum of their content in the field ``checksum``.

With the checksum, a changed byte is detected when an object is read. Objects without a checksum are accepted, because
job files of charts and files of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_CHECKSUM = "checksum"


class ChecksumMismatch(ValueError):
    """The content of a JSON object does not match its checksum."""

    def __init__(self) -> None:
        super().__init__("the content was changed after it was written: it does not match its checksum")


def dump_checked(content: Mapping[str, Any]) -> bytes:
    """Return the JSON text of an object, with its checksum, in the format that :func:`load_checked` reads."""
    return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2, ensure_ascii=False).encode()


def load_checked(data: bytes) -> Any:
    """Return a JSON value without its checksum.

    Raises:
        ChecksumMismatch: the value was changed after it was written.
        ValueError: the text is not JSON.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if isinstance(content, dict) and _CHECKSUM in content:
        stated = content.pop(_CHECKSUM)
        if stated != _checksum(content):
            raise ChecksumMismatch
    return content


def has_checksum(data: bytes) -> bool:
    """Return True if a JSON object has a checksum and matches it."""
    try:
        load_checked(data)
        content = json.loads(data)
    except ValueError:
        return False
    return isinstance(content, dict) and _CHECKSUM in content


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
