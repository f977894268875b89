"""Check every row of a table against the rules of its data type, and report every violation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editr1.data.errors import TableError, shorten
from editr1.data.jsonl import read_json_lines, resolve_images
from editr1.data.pair_conflicts import PairConflicts
from editr1.data.rules import DEFAULT, Limits, ParseTrace, row_violations
from editr1.data.schema import KINDS
from editr1.data.tables import images_in, kind_of_columns, read_plain, table_kind
from editr1.data.types import DataModel, EditCase, PreferencePair, Quadruple, SftRow
from editr1.data.valid_rows import ImageChecker


@dataclass(frozen=True)
class Problem:
    """One violation found in a table.

    ``row`` counts from 1; in a JSON Lines file it is the line number. ``row`` and ``field`` are None if the problem
    concerns the whole file.
    """

    row: int | None
    field: str | None
    value: str
    rule: str

    def __str__(self) -> str:
        where = [f"row {self.row}"] if self.row is not None else ["file"]
        return ": ".join(
            [*where, *([self.field] if self.field else []), *([self.value] if self.value else []), self.rule]
        )


def check_file(
    path: Path,
    kind: type[DataModel] | None = None,
    *,
    decode_images: bool = True,
    parse: ParseTrace | None = None,
    limits: Limits = DEFAULT,
) -> Iterator[Problem]:
    """Yield every problem found in a table (a JSON Lines file, ``.jsonl``, or a Parquet file).

    The following is checked: every field has an allowed value, every image has the stated digest, ids are unique, the
    two images of a pair differ, no pair contradicts an earlier one, and every row satisfies the rules of
    :mod:`editr1.data.rules`. Every distinct image is decoded (unless ``decode_images=False``). If ``parse`` is given,
    it must accept the traces of SFT rows. If ``kind`` is None, the data type is derived from the fields in the file.
    If the file is not a table, one problem is yielded instead of an exception.
    """
    path = Path(path)
    try:
        checker = _Checker(ImageChecker(limits) if decode_images else None, parse)
        for number, row, rows_kind in _rows(path, kind):
            yield from [_problem(row)] if isinstance(row, TableError) else checker.check(number, row, rows_kind)
    except TableError as error:
        yield _problem(error)


class _Checker:
    def __init__(self, images: ImageChecker | None, parse: ParseTrace | None) -> None:
        self._images = images
        self._parse = parse
        self._first_row: dict[bytes, int] = {}
        self._preferences = PairConflicts()

    def check(self, number: int, row: dict[str, Any], kind: type[DataModel]) -> Iterator[Problem]:
        for place, image in images_in(row):
            wanted, data = image.pop("sha256", None), image.get("data")
            if not isinstance(data, bytes):
                continue
            found = hashlib.sha256(data).hexdigest()
            if wanted is not None and found != wanted:
                rule = f"does not match the image, whose SHA-256 is {found}; correct it"
                yield Problem(number, f"{place}.sha256", wanted, rule)
            if self._images is not None and data and (fault := self._images.fault(data)):
                yield Problem(number, place, shorten(data), fault)
        try:
            item = kind.model_validate(row)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                field = ".".join(str(part) for part in detail["loc"])
                yield Problem(number, field, shorten(detail["input"]), detail["msg"])
            return
        for violation in row_violations(item, parse=self._parse):
            value = "" if violation.value is None else shorten(violation.value)
            yield Problem(number, violation.field, value, violation.rule)
        yield from self._across_rows(number, item)

    def _across_rows(self, number: int, item: DataModel) -> Iterator[Problem]:
        field, name = _identity(item)
        key = hashlib.sha256(name.encode()).digest()[:16]
        first = self._first_row.setdefault(key, number)
        if first != number:
            yield Problem(number, field, repr(name), f"must be unique, but row {first} has the same value; change one")
        # A pair whose winner and loser are the same candidate is already reported by another rule.
        if isinstance(item, PreferencePair) and item.winner.candidate_id != item.loser.candidate_id:
            self._preferences.add_pair(item)
            fault = self._preferences.fault_of(item)
            if fault is not None:
                yield Problem(number, "winner, loser", repr(item.pair_id), f"{fault.rule}; remove the pair")


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
            raise TableError(
                path,
                number,
                None,
                sorted(line),
                f"these fields do not match any data type; use the fields of one of: {', '.join(KINDS)}",
            )
        try:
            yield number, resolve_images(path, number, line), kind
        except TableError as error:
            yield number, error, kind


def _identity(item: DataModel) -> tuple[str, str]:
    if isinstance(item, PreferencePair):
        return "pair_id", item.pair_id
    if isinstance(item, EditCase):
        return "case_id", item.case_id
    assert isinstance(item, Quadruple | SftRow)
    quadruple = item.quadruple if isinstance(item, SftRow) else item
    return "case_id + candidate_id", f"{quadruple.case.case_id} + {quadruple.candidate.candidate_id}"


def _problem(error: TableError) -> Problem:
    return Problem(error.row, error.field, "" if error.value is None else shorten(error.value), error.rule)
