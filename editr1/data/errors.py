"""The base of every complaint about input data."""

from __future__ import annotations

from pathlib import Path

from editr1.errors import Editr1Error, ExitCode


class DataError(Editr1Error, ValueError):
    """Input data break a rule. The message names file, row and field, the value and what is allowed."""

    exit_code = ExitCode.DATA


class TableError(DataError):
    """A table, or one row of it, breaks a rule.

    ``row`` counts from 1; it is None, as is ``field``, where the whole file is at fault.
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
    """``repr`` for a message: bytes as their count, long texts cut."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
