"""The one interface under every store: immutable-or-replaced objects under string keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from editr1.artifacts.errors import StoreError

_KEY = re.compile(r"[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*(/[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*)*")


class ObjectStore(Protocol):
    """Objects by key. A put is atomic: a reader sees the old bytes or the new ones, never a part. Safe in threads."""

    url: str
    """Address, for messages; holds no secret."""

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. Raises AlreadyExists when ``once`` is set and the key exists; the check is atomic."""

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Write an object from a file. Raises DigestMismatch, and writes nothing, if the file no longer is as named."""

    def get_bytes(self, key: str) -> bytes:
        """The whole object. Raises ArtifactNotFound."""

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """The object from byte ``offset`` (less than its size) on, in chunks. Raises ArtifactNotFound."""

    def size(self, key: str) -> int | None:
        """Size in bytes, None when there is no such object."""

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error. Nothing but probes is ever removed."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with ``prefix``, in order."""


def checked_key(key: str) -> str:
    """``key`` if it is safe in a path and in a URL. Raises StoreError."""
    if len(key) > 900 or _KEY.fullmatch(key) is None:
        raise StoreError(
            f"key {key!r}: must be parts of letters, digits and ._=+@,:- joined by '/', no part beginning with a dot"
        )
    return key
