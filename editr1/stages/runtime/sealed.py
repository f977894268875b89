"""Protect intermediate files of a stage that a later attempt reuses.

A digest next to a file shows that it is complete and unchanged.
"""

from __future__ import annotations

from pathlib import Path

from editr1.artifacts.hashing import file_sha256


def seal(file: Path) -> None:
    """Write the SHA-256 of a complete file next to it."""
    digest = _digest_file(file)
    part = digest.with_name(digest.name + ".part")
    part.write_text(file_sha256(file), encoding="utf-8")
    part.replace(digest)


def is_intact(file: Path) -> bool:
    """Return True if the file was sealed and has not changed since."""
    digest = _digest_file(file)
    return file.is_file() and digest.is_file() and digest.read_bytes() == file_sha256(file).encode()


def _digest_file(file: Path) -> Path:
    return file.with_name(file.name + ".sha256")
