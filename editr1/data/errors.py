"""Errors about input data."""

from __future__ import annotations

from pathlib import Path

from editr1.errors import Editr1Error, ExitCode


class DataError(Editr1Error, ValueError):
    """The input data are invalid. The message gives the file, the row, the field, the value, and what is allowed."""

    exit_code = ExitCode.DATA


class TableError(DataError):
    """A table, or one row of it, is invalid; ``rule`` states what is allowed.

    ``row`` counts from 1. ``row`` and ``field`` are None if the error concerns the whole file.
    """

    def __init__(self, file: Path | str, row: int | None, field: str | None, value: object, rule: str) -> None:
        self.file = Path(file)
        self.row = row
        self.field = field
        self.value = value
        self.rule = rule
        where = [str(file), *([f"row {row}"] if row is not None else []), *([field] if field else [])]
        shown = [] if value is None else [shorten(value)]
        super().__init__(": ".join([*where, *shown, rule]))


def shorten(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, shortened for an error message.

    Bytes are replaced with their length, and long values are truncated.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
