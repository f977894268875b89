"""Validate single rows of an import table.

``editr1.data.importer`` describes the columns and checks the rules that involve several rows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from editr1.data.errors import TableError
from editr1.data.given_json import parse_given_json
from editr1.data.ids import generated_case_id, path_stem
from editr1.data.import_forms import EmbeddedImages, RawRow, read_raw_rows
from editr1.data.rules import character_fault, text_violations
from editr1.data.types import Id, Instruction, Principle

_PREFERENCES = ("winner", "loser", "same")


@dataclass(frozen=True)
class ImportRow:
    """One row of the import table, which describes one edited image.

    ``number`` and ``unit`` give the position of the row, counted from 1: its first line in a text file (unit "line"),
    or its index in a list or Parquet file (unit "row"). ``source`` and ``edited`` are the paths as written in the
    table, or the names of embedded images.
    """

    number: int
    unit: str
    case_id: str
    source: str
    instruction: str
    edited: str
    editor: str
    preferred: str | None
    rank: int | None
    principles: tuple[Principle, ...]

    @property
    def place(self) -> str:
        """The position of the row for an error message, such as "line 3"."""
        return f"{self.unit} {self.number}"


def read_import_rows(table: Path, embedded: EmbeddedImages) -> Iterator[ImportRow | TableError]:
    """Yield every row of the table in order.

    An invalid row is yielded as a TableError. Embedded images are added to ``embedded``.

    Raises:
        TableError: the file does not exist, is not UTF-8, or has a missing, unknown or duplicate column.
    """
    for raw in read_raw_rows(table, embedded):
        yield raw.values if isinstance(raw.values, TableError) else _checked(table, raw, raw.values)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    source: str = Field(min_length=1)
    instruction: Instruction
    edited: str = Field(min_length=1)
    editor: str = Field(min_length=1, max_length=200)
    # The limit is below that of other ids, because the ids of candidates and pairs append a few characters to the
    # case id.
    case_id: Id | None = Field(default=None, max_length=180)
    preferred: str | None = None
    rank: int | None = Field(default=None, ge=1)
    principles: tuple[Principle, ...] = ()

    @field_validator("case_id", "preferred", "rank", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        # pandas writes NaN for a missing number.
        if isinstance(value, bool):
            raise ValueError("true and false are not allowed here")
        missing = not value.strip() if isinstance(value, str) else value != value
        return None if missing else value

    @field_validator("principles", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            try:
                return parse_given_json(value)
            except ValueError as error:
                raise ValueError(f"the value is not JSON: {error}") from None
        return value

    @field_validator("preferred")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in _PREFERENCES:
            raise ValueError(f"must be {', '.join(_PREFERENCES)} or empty")
        return value


def _checked(table: Path, raw_row: RawRow, raw: dict[str, Any]) -> ImportRow | TableError:
    number = raw_row.number
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
    for violation in text_violations(fields.instruction, fields.principles):
        return TableError(table, number, *violation)
    if fault := character_fault(fields.editor):
        return TableError(table, number, "editor", fields.editor, fault)
    # A word can be written with one character or with a letter and an accent, which look the same.
    instruction = unicodedata.normalize("NFC", fields.instruction)
    case_id = unicodedata.normalize("NFC", fields.case_id) if fields.case_id else _case_id(fields.source, instruction)
    return ImportRow(
        number=number,
        unit=raw_row.unit,
        case_id=case_id,
        source=fields.source,
        instruction=instruction,
        edited=fields.edited,
        editor=fields.editor,
        preferred=fields.preferred,
        rank=fields.rank,
        principles=fields.principles,
    )


def _case_id(source: str, instruction: str) -> str:
    name = instruction if source.startswith("sha256:") else path_stem(source)
    return generated_case_id(source, instruction, name)
