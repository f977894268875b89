"""Compute the SHA-256 of a file, and verify it while the file is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from editr1.artifacts.errors import DigestMismatch, UnreadableFile

CHUNK = 1 << 20
PREFIX = "sha256:"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def opened_to_read(path: Path) -> Iterator[BinaryIO]:
    """Open a local file that is being committed.

    Raises UnreadableFile if this fails.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


class VerifiedReader:
    """Reader that checks the size and the SHA-256 of a file. It returns the last chunk only if both are as expected."""

    def __init__(self, file: BinaryIO, path: Path, size: int, sha256: str) -> None:
        self._file = file
        self._path = path
        self._left = size
        self._sha256 = sha256
        self._hash = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """Read at most ``count`` bytes. Raise DigestMismatch if the file changed since it was hashed."""
        try:
            data = self._file.read(self._left if count < 0 else min(count, self._left))
        except OSError as error:
            raise _unreadable(self._path, error) from error
        self._hash.update(data)
        self._left -= len(data)
        at_end = self._left == 0
        short = not data and not at_end and count != 0
        if short or (at_end and (self._hash.hexdigest() != self._sha256 or self._file.read(1))):
            raise DigestMismatch(f"{self._path}: the file changed while it was being committed; commit it again")
        return data


def _unreadable(path: Path, error: OSError) -> UnreadableFile:
    return UnreadableFile(
        f"{path}: this file cannot be committed, because it cannot be read: {error.strerror or error}; check "
        "the file and its disk"
    )
