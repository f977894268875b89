"""Check a table, row by row, and name everything that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editr1.data.errors import TableError, shorten
from editr1.data.images import ImageError, decode_image
from editr1.data.jsonl import read_json_lines, resolve_pictures
from editr1.data.schema import KINDS
from editr1.data.tables import kind_of_columns, pictures_in, read_plain, table_kind
from editr1.data.types import DataModel, EditCase, PreferencePair, Quadruple, SftRow

_REMEMBERED = 100_000


@dataclass(frozen=True)
class Problem:
    """A broken rule. ``row`` counts from 1 (in JSON lines: the line); None, as ``field``, for the file as a whole."""

    row: int | None
    field: str | None
    value: str
    rule: str

    def __str__(self) -> str:
        where = [f"row {self.row}"] if self.row is not None else ["file"]
        return ": ".join(
            [*where, *([self.field] if self.field else []), *([self.value] if self.value else []), self.rule]
        )


def check_file(path: Path, kind: type[DataModel] | None = None, *, pictures: bool = True) -> Iterator[Problem]:
    """Every problem of a table: ``.jsonl`` (see ``editr1.data.jsonl``), anything else is read as Parquet.

    Checked: the types' rules, digests, that every picture decodes (each distinct one once; not with
    ``pictures=False``), that ids are unique, that a pair compares two candidates, that agreement lies in [0, 1]. The
    kind is found from the file when none is given. A file that is no table is one problem; nothing is raised.
    """
    path = Path(path)
    try:
        checker = _Checker(pictures)
        for number, row, rows_kind in _rows(path, kind):
            yield from [_of(row)] if isinstance(row, TableError) else checker.check(path, number, row, rows_kind)
    except TableError as error:
        yield _of(error)


class _Checker:
    def __init__(self, pictures: bool) -> None:
        self._pictures = pictures
        self._decoded: set[bytes] = set()
        self._first_row: dict[bytes, int] = {}

    def check(self, path: Path, number: int, row: dict[str, Any], kind: type[DataModel]) -> Iterator[Problem]:
        for place, picture in pictures_in(row):
            wanted, data = picture.pop("sha256", None), picture.get("data")
            if not isinstance(data, bytes):
                continue
            digest = hashlib.sha256(data)
            if wanted is not None and digest.hexdigest() != wanted:
                yield Problem(number, f"{place}.sha256", wanted, f"the picture's bytes have {digest.hexdigest()}")
            if self._pictures and data and digest.digest() not in self._decoded:
                try:
                    decode_image(data)
                except ImageError as error:
                    yield Problem(number, place, shorten(data), str(error))
                    continue
                if len(self._decoded) >= _REMEMBERED:
                    self._decoded.clear()
                self._decoded.add(digest.digest())
        try:
            noun = kind.model_validate(row)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False):
                field = ".".join(str(part) for part in fault["loc"])
                yield Problem(number, field, shorten(fault["input"]), fault["msg"])
            return
        yield from self._across_rows(number, noun)

    def _across_rows(self, number: int, noun: DataModel) -> Iterator[Problem]:
        field, name = _identity(noun)
        key = hashlib.sha256(name.encode()).digest()[:16]
        first = self._first_row.setdefault(key, number)
        if first != number:
            yield Problem(number, field, repr(name), f"must be unique; row {first} has it too")
        if isinstance(noun, PreferencePair) and noun.winner.candidate_id == noun.loser.candidate_id:
            value = repr(noun.loser.candidate_id)
            yield Problem(number, "loser.candidate_id", value, "must differ from winner.candidate_id")
        if isinstance(noun, SftRow) and noun.agreement is not None and not 0.0 <= noun.agreement <= 1.0:
            yield Problem(number, "agreement", repr(noun.agreement), "must lie in [0, 1]")


def _rows(
    path: Path, kind: type[DataModel] | None
) -> Iterator[tuple[int, dict[str, Any] | TableError, type[DataModel]]]:
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        found = kind or table_kind(path)
        for number, row in read_plain(path, found):
            yield number, row, found
        return
    for number, line in read_json_lines(path):
        if isinstance(line, TableError):
            yield number, line, kind or EditCase
            continue
        kind = kind or kind_of_columns(set(line))
        if kind is None:
            raise TableError(path, number, None, sorted(line), f"not the fields of {', '.join(KINDS)}")
        try:
            yield number, resolve_pictures(path, number, line), kind
        except TableError as error:
            yield number, error, kind


def _identity(noun: DataModel) -> tuple[str, str]:
    if isinstance(noun, PreferencePair):
        return "pair_id", noun.pair_id
    if isinstance(noun, EditCase):
        return "case_id", noun.case_id
    assert isinstance(noun, Quadruple | SftRow)
    quadruple = noun.quadruple if isinstance(noun, SftRow) else noun
    return "case_id + candidate_id", f"{quadruple.case.case_id} + {quadruple.candidate.candidate_id}"


def _of(error: TableError) -> Problem:
    return Problem(error.row, error.field, "" if error.value is None else shorten(error.value), error.rule)
