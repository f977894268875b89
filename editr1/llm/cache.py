"""A persistent cache of model answers in one SQLite file, keyed by a digest of the request."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)


class AnswerCache:
    """Cache of model answers in a SQLite file, keyed by the SHA-256 of the request. Entries are never overwritten.

    Several processes may share the file, and killing a process at any time does not corrupt it. If ``path`` is None,
    nothing is cached. A damaged file is renamed to ``<name>.damaged``, and a new one is started. A damaged entry is removed when
    it is read: each one has a checksum of the request's digest and of the answer.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _opened(path)

    def get(self, digest: bytes) -> bytes | None:
        """Return the cached answer for ``digest`` (32 bytes), or None if there is no entry."""
        if self._db is None:
            return None
        row = self._db.execute("SELECT reply, checksum FROM checked_answers WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        if row[1] != _checksum(digest, row[0]):
            log.warning(
                "%s: the cached answer to request %s is damaged; it is requested again", self._path, digest.hex()
            )
            self.discard(digest)
            return None
        return bytes(row[0])

    def put(self, digest: bytes, reply: bytes) -> None:
        """Cache ``reply`` under ``digest``. An existing entry is not changed."""
        if self._db is not None:
            row = (digest, reply, _checksum(digest, reply))
            self._db.execute("INSERT OR IGNORE INTO checked_answers VALUES (?, ?, ?)", row)

    def discard(self, digest: bytes) -> None:
        """Remove the entry for ``digest``, if there is one."""
        if self._db is not None:
            self._db.execute("DELETE FROM checked_answers WHERE digest = ?", (digest,))

    def close(self) -> None:
        """Close the database connection."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checksum(digest: bytes, reply: bytes) -> bytes:
    return hashlib.sha256(digest + reply).digest()[:16]


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # for example, no permission or a full disk
            raise OSError(f"{path}: the cache of model answers cannot be opened: {error}") from error
        kept = path.with_name(f"{path.name}.damaged")
        log.warning(
            "%s: the cache of model answers is damaged (%s); it was renamed to %s, and a new cache was created",
            path,
            error,
            kept,
        )
        path.replace(kept)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        columns = "digest BLOB PRIMARY KEY, reply BLOB, checksum BLOB"
        connection.execute(f"CREATE TABLE IF NOT EXISTS checked_answers ({columns}) WITHOUT ROWID")
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
