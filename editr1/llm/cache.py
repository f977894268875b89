"""A persistent cache of model answers in one SQLite file, keyed by a digest of the request."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Self


class AnswerCache:
    """Cache of model answers in a SQLite file, keyed by the SHA-256 of the request. Entries are never overwritten.

    Several processes may share the file, and killing a process at any time does not corrupt it. If ``path`` is None,
    nothing is cached.
    """

    def __init__(self, path: Path | None) -> None:
        self._db: sqlite3.Connection | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS answers (digest BLOB PRIMARY KEY, reply BLOB) WITHOUT ROWID")

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
