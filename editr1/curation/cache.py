"""Answers that were paid for once: a table of replies by request digest in one SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self


class AnswerCache:
    """Append-only table from a request's SHA-256 to the reply's bytes. Safe to be killed at any time.

    Several processes may share the file. ``path`` None keeps nothing.
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
        """The reply kept under ``digest`` (32 bytes), or None."""
        if self._db is None:
            return None
        row = self._db.execute("SELECT reply FROM answers WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, digest: bytes, reply: bytes) -> None:
        """Keep ``reply``; the first one kept under a digest stays."""
        if self._db is not None:
            self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (digest, reply))

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
