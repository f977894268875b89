"""The interface that the storage backends (local folder and S3) implement. They read and write objects by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from editr1.artifacts.errors import StoreError

_KEY = re.compile(r"[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*(/[A-Za-z0-9_=+@,:-][A-Za-z0-9._=+@,:-]*)*")


class ObjectStore(Protocol):
    """Storage of objects by key. Implementations are thread-safe.

    Writes are atomic: a reader sees the old or the new bytes, never a mixture.
    """

    url: str
    """Address of the store for messages. It contains no credentials."""

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. With ``once``, raise AlreadyExists if the key exists. Check and write are one atomic operation.

        :class:`editr1.artifacts.reliable.ReliableObjects` accepts an object that exists with the same content.
        """

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Write an object from a file.

        If the file has a different size or SHA-256, raise DigestMismatch and store nothing.
        """

    def get_bytes(self, key: str) -> bytes:
        """Return the content of an object. Raise ArtifactNotFound if it does not exist."""

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the content of an object in chunks, starting at byte ``offset``, which must be less than the size.

        Raises:
            ArtifactNotFound: the object does not exist.
        """

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the object does not exist."""

    def delete(self, key: str) -> None:
        """Remove an object, if it exists.

        Only :func:`editr1.artifacts.probe.probe` and :func:`editr1.runs.repair.move_aside` remove objects.
        """

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""


def checked_key(key: str) -> str:
    """Return ``key`` if it is safe in a path and in a URL; otherwise raise StoreError."""
    if len(key) > 900 or _KEY.fullmatch(key) is None:
        raise StoreError(
            f"key {key!r}: must have at most 900 characters; its parts, separated by '/', must consist of letters, digits "
            "and ._=+@,:- and must not start with a dot"
        )
    return key
