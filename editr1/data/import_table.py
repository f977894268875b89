"""Read and validate the rows of an import table (CSV or JSON Lines).

``editr1.data.importer`` describes the columns and checks the rules that concern several rows.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from editr1.data.errors import TableError
from editr1.data.jsonl import read_json_lines
from editr1.data.types import Id, Instruction, Principle

REQUIRED: Final = ("source", "instruction", "edited", "editor")
OPTIONAL: Final = ("case_id", "preferred", "rank", "principles")
_PREFERENCES = ("winner", "loser", "same")


@dataclass(frozen=True)
class ImportRow:
    """One row of the import table, which describes one edited image.

    ``line`` is the number of the row's last line in the file, counted from 1. ``source`` and ``edited`` are the paths as
    written in the table.
    """

    line: int
    case_id: str
    source: str
    instruction: str
    edited: str
    editor: str
    preferred: str | None
    rank: int | None
    principles: tuple[Principle, ...]


def read_import_rows(table: Path) -> Iterator[ImportRow | TableError]:
    """Yield every row of the table in order. For an invalid row, a TableError is yielded, not raised.

    Raises:
        TableError: the file does not exist, is not UTF-8, or has a missing, unknown or duplicate column.
    """
    lines = _json_lines(table) if table.suffix.lower() in (".jsonl", ".ndjson") else _csv_lines(table)
    for number, raw in lines:
        yield raw if isinstance(raw, TableError) else _checked(table, number, raw)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    source: str = Field(min_length=1)
    instruction: Instruction
    edited: str = Field(min_length=1)
    editor: str = Field(min_length=1, max_length=200)
    # Shorter than other ids, because the ids of candidates and pairs append a few characters to it.
    case_id: Id | None = Field(default=None, max_length=180)
    preferred: str | None = None
    rank: int | None = Field(default=None, ge=1)
    principles: tuple[Principle, ...] = ()

    @field_validator("case_id", "preferred", "rank", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("principles", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            try:
                return json.loads(value)
            except ValueError as error:
                raise ValueError(f"the value is not JSON: {error}") from None
        return value

    @field_validator("preferred")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in _PREFERENCES:
            raise ValueError(f"must be {', '.join(_PREFERENCES)} or empty")
        return value


def _checked(table: Path, number: int, raw: dict[str, Any]) -> ImportRow | TableError:
    try:
        fields = _Fields.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Value error, ")
        return TableError(table, number, name, None if first["type"] == "missing" else first["input"], rule)
    if fields.rank is not None and fields.preferred is not None:
        return TableError(
            table, number, "rank", fields.rank, "a row must not have both rank and preferred; remove one of them"
        )
    return ImportRow(
        line=number,
        case_id=fields.case_id or _case_id(fields.source, fields.instruction),
        source=fields.source,
        instruction=fields.instruction,
        edited=fields.edited,
        editor=fields.editor,
        preferred=fields.preferred,
        rank=fields.rank,
        principles=fields.principles,
    )


def _case_id(source: str, instruction: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(source).stem).strip("-")[:60] or "case"
    digest = hashlib.sha256(b"\0".join([source.encode(), instruction.encode()])).hexdigest()
    return f"{stem}-{digest[:8]}"


def _json_lines(table: Path) -> Iterator[tuple[int, dict[str, Any] | TableError]]:
    yield from read_json_lines(table)


def _csv_lines(table: Path) -> Iterator[tuple[int, dict[str, Any] | TableError]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(table, [*(reader.fieldnames or [])])
            for raw in reader:
                if None in raw or None in raw.values():
                    width = len(reader.fieldnames or [])
                    rule = f"the row must have {width} fields, as many as the header"
                    yield reader.line_num, TableError(table, reader.line_num, None, None, rule)
                else:
                    yield reader.line_num, dict(raw)
    except UnicodeDecodeError:
        raise TableError(table, None, None, None, "the table is not UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise TableError(table, reader.line_num, None, None, f"the table is not CSV: {error}") from None
    except OSError as error:
        raise TableError(table, None, None, None, error.strerror or str(error)) from None


def _check_columns(table: Path, columns: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise TableError(
            table,
            1,
            missing[0],
            None,
            f"this column is missing; the table has the columns: {', '.join(columns)}"
            if columns
            else "this column is missing, because the table is empty; write the column names in the first line",
        )
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        raise TableError(
            table, 1, unknown[0], None, f"unknown column; allowed columns: {', '.join((*REQUIRED, *OPTIONAL))}"
        )
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise TableError(table, 1, twice[0], None, "this column occurs more than once; keep only one")
