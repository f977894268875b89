"""A folder of photographs and a table about them become cases, quadruples and preference pairs.

The table is CSV (comma, semicolon or tab; UTF-8) or JSON lines, one row an edited picture:

============  ==================================================================================================
column        meaning
============  ==================================================================================================
source        path of the source picture, relative to the folder
instruction   what was asked for
edited        path of the edited picture, relative to the folder
editor        who or what made it
case_id       optional; rows with one id are one case. Without it: one case for each (source, instruction)
preferred     optional: ``winner``, ``loser`` or ``same``; in a case every winner beats every loser, and any two
              rows with ``same`` are a "same" pair
rank          optional, instead of ``preferred``: 1 is best; a lower rank beats a higher one, equal ranks are "same"
principles    optional: JSON list of {"question", "category"}; where given it must be alike in all rows of a case
============  ==================================================================================================
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from editr1.data.errors import TableError, shorten
from editr1.data.images import ImageError, decode_image, encode_png, shrink
from editr1.data.import_rows import ImportRow, read_import_rows
from editr1.data.jsonl import read_below
from editr1.data.schema import images_path
from editr1.data.tables import write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, PreferencePair, Principle, Quadruple


@dataclass(frozen=True)
class ImportReport:
    """What an import found and did.

    ``counts``: rows, bad_rows, cases, quadruples, pairs ("winner" pairs) and same ("same" pairs). ``files`` are the
    tables that were written: none when a row was bad and bad rows were not to be skipped.
    """

    counts: dict[str, int]
    problems: list[TableError]
    files: list[Path]


def import_folder(
    folder: Path, table: Path, out: Path, *, max_side: int | None = None, skip_bad: bool = False
) -> ImportReport:
    """Read ``table`` and the pictures below ``folder``; write a table a kind into a folder of its own below ``out``.

    The files are ``cases/cases.parquet``, ``quadruples/quadruples.parquet`` and, where people preferred something,
    ``pairs/pairs.parquet``. Every row and picture is checked first; nothing is written when any is bad, unless
    ``skip_bad``. Pictures keep their bytes; with ``max_side`` those with a longer side (in pixels) are scaled down and
    stored as PNG. The tables are in ``digest`` form (see ``editr1.data.schema``): each has its pictures once, in
    ``<stem>.images`` beside it. A few pictures at a time are in memory.

    What an earlier import left in ``out`` is replaced as a whole, pairs included.

    Raises:
        TableError: the table cannot be read, or lacks a column or knows too many.
        OSError: ``out`` can be no folder of this user; said before anything is read.

    Example:
        ``import_folder(Path("photos"), Path("photos/table.csv"), Path("photos-data"), max_side=512)``
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: {max_side}: must be at least 1")
    _check_folder(out)
    cases: dict[str, _Case] = {}
    problems: list[TableError] = []
    rows = 0
    with TemporaryDirectory(prefix="editr1-import-") as scratch:
        pictures = _Pictures(folder, max_side, Path(scratch))
        for row in read_import_rows(table):
            rows += 1
            fault = row if isinstance(row, TableError) else _fault(table, row, cases, pictures)
            if fault is not None:
                problems.append(fault)
            elif isinstance(row, ImportRow):
                cases.setdefault(row.case_id, _Case(row)).add(row)
        writes = cases and (skip_bad or not problems)
        files = _replace(out, cases, pictures) if writes else []
    pairs = [pair for case in cases.values() for pair in case.pairs()]
    labels = Counter(label for *_, label in pairs)
    counts = {
        "rows": rows,
        "bad_rows": len(problems),
        "cases": len(cases),
        "quadruples": sum(len(case.rows) for case in cases.values()),
        "pairs": labels["winner"],
        "same": labels["same"],
    }
    return ImportReport(counts, problems, files)


@dataclass
class _Case:
    first: ImportRow
    rows: list[ImportRow] = field(default_factory=list)
    principles: tuple[Principle, ...] = ()

    def add(self, row: ImportRow) -> None:
        self.rows.append(row)
        self.principles = self.principles or row.principles

    def pairs(self) -> Iterator[tuple[int, int, str]]:
        """(better, worse, label) as indices of ``rows``."""
        for one, other in combinations(range(len(self.rows)), 2):
            a, b = self.rows[one], self.rows[other]
            if a.rank is not None and b.rank is not None:
                label = "same" if a.rank == b.rank else "winner"
                yield (one, other, label) if a.rank <= b.rank else (other, one, label)
            elif (a.preferred, b.preferred) == ("winner", "loser"):
                yield one, other, "winner"
            elif (a.preferred, b.preferred) == ("loser", "winner"):
                yield other, one, "winner"
            elif (a.preferred, b.preferred) == ("same", "same"):
                yield one, other, "same"


class _Pictures:
    """The folder's pictures, each decoded once; those that are scaled down wait in ``scratch``."""

    def __init__(self, folder: Path, max_side: int | None, scratch: Path) -> None:
        self._folder = folder
        self._max_side = max_side
        self._scratch = scratch
        self._faults: dict[str, str] = {}
        self._scaled: dict[str, Path] = {}
        self.read = lru_cache(maxsize=32)(self._read)

    def fault(self, name: str) -> str:
        """Why the picture cannot be used, or nothing."""
        if name not in self._faults:
            self._faults[name] = ""
            try:
                image = decode_image(read_below(self._folder, name))
            except (ImageError, ValueError) as error:
                self._faults[name] = str(error)
                return str(error)
            if self._max_side is not None and max(image.size) > self._max_side:
                self._scaled[name] = self._scratch / str(len(self._scaled))
                self._scaled[name].write_bytes(encode_png(shrink(image, self._max_side)))
        return self._faults[name]

    def _read(self, name: str) -> EncodedImage:
        scaled = self._scaled.get(name)
        return EncodedImage(data=scaled.read_bytes() if scaled else read_below(self._folder, name))


def _fault(table: Path, row: ImportRow, cases: dict[str, _Case], pictures: _Pictures) -> TableError | None:
    case = cases.get(row.case_id)
    if case is not None:
        for name in ("source", "instruction"):
            wanted = getattr(case.first, name)
            if getattr(row, name) != wanted:
                rule = f"case {row.case_id!r} has {wanted!r} in line {case.first.line}"
                return TableError(table, row.line, name, getattr(row, name), rule)
        if row.principles and case.principles and row.principles != case.principles:
            return TableError(table, row.line, "principles", None, f"differ from those of case {row.case_id!r} above")
        for other in case.rows:
            if other.edited == row.edited and other.editor == row.editor:
                rule = f"editor {row.editor!r} gave it for this case in line {other.line} already"
                return TableError(table, row.line, "edited", row.edited, rule)
            if (other.rank is None) != (row.rank is None) and (row.preferred or other.preferred):
                name, value = ("rank", row.rank) if row.rank is not None else ("preferred", row.preferred)
                rule = f"line {other.line} of this case uses the other column; a case uses one of rank and preferred"
                return TableError(table, row.line, name, value, rule)
    for name in ("source", "edited"):
        picture = getattr(row, name)
        if rule := pictures.fault(picture):
            return TableError(table, row.line, name, picture, rule)
    return None


def _check_folder(out: Path) -> None:
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written there", str(there))


def _replace(out: Path, cases: dict[str, _Case], pictures: _Pictures) -> list[Path]:
    """Write the tables beside ``out``, then put them in the place of those that are there: never some old and some new."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=out) as made:
        files = [path.relative_to(made) for path in _write(Path(made), cases, pictures)]
        for name in ("cases", "quadruples", "pairs"):
            table = out / name / f"{name}.parquet"
            table.unlink(missing_ok=True)
            images_path(table).unlink(missing_ok=True)
        for file in files:
            (out / file).parent.mkdir(exist_ok=True)
            os.replace(images_path(Path(made) / file), images_path(out / file))
            os.replace(Path(made) / file, out / file)
    return [out / file for file in files]


def _write(out: Path, cases: dict[str, _Case], pictures: _Pictures) -> list[Path]:
    def edit_case(case: _Case) -> EditCase:
        first = case.first
        return EditCase(
            case_id=first.case_id,
            source=pictures.read(first.source),
            instruction=first.instruction,
            principles=case.principles,
        )

    def candidate(case: _Case, index: int) -> Candidate:
        row = case.rows[index]
        return Candidate(candidate_id=f"{row.case_id}/{index + 1}", editor=row.editor, image=pictures.read(row.edited))

    def quadruples() -> Iterator[Quadruple]:
        for case in cases.values():
            for index in range(len(case.rows)):
                yield Quadruple(case=edit_case(case), candidate=candidate(case, index))

    def pairs() -> Iterator[PreferencePair]:
        for case in cases.values():
            for better, worse, label in case.pairs():
                yield PreferencePair(
                    pair_id=f"{case.first.case_id}/{better + 1}-{worse + 1}",
                    case=edit_case(case),
                    winner=candidate(case, better),
                    loser=candidate(case, worse),
                    label="same" if label == "same" else "winner",
                )

    files = [out / "cases" / "cases.parquet", out / "quadruples" / "quadruples.parquet"]
    write_table(files[0], map(edit_case, cases.values()), EditCase, images="digest")
    write_table(files[1], quadruples(), Quadruple, images="digest")
    if any(True for case in cases.values() for _ in case.pairs()):
        files.append(out / "pairs" / "pairs.parquet")
        write_table(files[2], pairs(), PreferencePair, images="digest")
    return files


def describe(problem: TableError) -> str:
    """``file:row: field: value: rule``, as editors and terminals link it."""
    where = str(problem.file) if problem.row is None else f"{problem.file}:{problem.row}"
    shown = [] if problem.value is None else [shorten(problem.value)]
    return ": ".join([where, *([problem.field] if problem.field else []), *shown, problem.rule])
