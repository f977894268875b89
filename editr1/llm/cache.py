"""A persistent cache of model answers in one SQLite file, keyed by a digest of the request."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)


class AnswerCache:
    """Cache of model answers in a SQLite file, keyed by the SHA-256 of the request. Entries are never overwritten.

    Several processes may share the file, and killing a process at any time does not corrupt it. If ``path`` is None,
    nothing is cached. A damaged file is renamed to ``<name>.damaged``, and a new one is started.
    """

    def __init__(self, path: Path | None) -> None:
        self._db: sqlite3.Connection | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _opened(path)

    def get(self, digest: bytes) -> bytes | None:
        """Return the cached answer for ``digest`` (32 bytes), or None if there is no entry."""
        if self._db is None:
            return None
        row = self._db.execute("SELECT reply FROM answers WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, digest: bytes, reply: bytes) -> None:
        """Cache ``reply`` under ``digest``, unless there is already an entry for ``digest``."""
        if self._db is not None:
            self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (digest, reply))

    def discard(self, digest: bytes) -> None:
        """Remove the entry for ``digest``, if there is one."""
        if self._db is not None:
            self._db.execute("DELETE FROM answers WHERE digest = ?", (digest,))

    def close(self) -> None:
        """Close the database connection."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # for example, no permission or a full disk
            raise OSError(f"{path}: the cache of model answers cannot be opened: {error}") from error
        kept = path.with_name(f"{path.name}.damaged")
        log.warning(
            "%s: the cache of model answers is damaged (%s); it is kept as %s, and a new one is started",
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
        connection.execute("CREATE TABLE IF NOT EXISTS answers (digest BLOB PRIMARY KEY, reply BLOB) WITHOUT ROWID")
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
    except sqlite3.Error:
        connection.close()
        raise
    return connection
