"""Interface of the storage backends, which read and write whole objects by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from editr1.artifacts.errors import StoreError

_KEY = re.compile(r"[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*(/[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*)*")


class ObjectStore(Protocol):
    """Storage of objects by key. Writes are atomic: a reader sees the old or the new bytes, never a mixture. Thread-safe."""

    url: str
    """Address for messages, without secrets."""

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. With ``once``, raise AlreadyExists if the key exists; the check is atomic."""

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Write an object from a file. If the size or digest does not match, raise DigestMismatch and store nothing."""

    def get_bytes(self, key: str) -> bytes:
        """Read an object. Raise ArtifactNotFound if it does not exist."""

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield an object in chunks, starting at byte ``offset``, which must be less than its size.

        Raises:
            ArtifactNotFound: the object does not exist.
        """

    def size(self, key: str) -> int | None:
        """Return the size in bytes, or None if there is no such object."""

    def delete(self, key: str) -> None:
        """Remove an object, if it exists. Only the probe of a store removes objects."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""


def checked_key(key: str) -> str:
    """Return ``key`` if it is safe in a path and in a URL; otherwise raise StoreError."""
    if len(key) > 900 or _KEY.fullmatch(key) is None:
        raise StoreError(
            f"key {key!r}: must be parts of letters, digits and ._=+@,:- joined by '/'; no part may start with a dot"
        )
    return key
