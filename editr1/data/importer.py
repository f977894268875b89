"""Convert a folder of images and a table that describes them to tables of cases, quadruples and preference pairs.

The table is CSV (comma, semicolon or tab; UTF-8) or JSON Lines, with one row per edited image:

============  ==================================================================================================
column        meaning
============  ==================================================================================================
source        path of the source image, relative to the folder
instruction   the edit instruction
edited        path of the edited image, relative to the folder
editor        the model or person that made the edit
case_id       optional; rows with the same id form a case. Default: one case per (source, instruction)
preferred     optional: ``winner``, ``loser`` or ``same``; within a case every winner beats every loser, and any two
              rows with ``same`` form a "same" pair
rank          optional, instead of ``preferred``: 1 is best; a lower rank beats a higher one, and two rows with equal
              ranks form a "same" pair
principles    optional: JSON list of {"question", "category"}; must be the same in all rows of a case that have it
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
from editr1.data.import_table import ImportRow, read_import_rows
from editr1.data.jsonl import read_below
from editr1.data.schema import images_path
from editr1.data.tables import write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, PreferencePair, Principle, Quadruple


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    ``counts`` has the keys rows, bad_rows (invalid rows), cases, quadruples, pairs (pairs with a winner) and same ("same"
    pairs). ``problems`` has one error per invalid row. ``files`` lists the tables that were written; it is empty if a row
    was invalid and ``skip_bad`` was not set.
    """

    counts: dict[str, int]
    problems: list[TableError]
    files: list[Path]


def import_folder(
    folder: Path, table: Path, out: Path, *, max_side: int | None = None, skip_bad: bool = False
) -> ImportReport:
    """Read ``table`` and the images in ``folder``, and write one table per data type to ``out``.

    The files are ``cases/cases.parquet``, ``quadruples/quadruples.parquet`` and, if the table has preferences,
    ``pairs/pairs.parquet``. The tables of an earlier import in ``out`` are replaced.

    All rows and images are checked first. If one is invalid, nothing is written; with ``skip_bad``, the invalid rows are
    skipped instead. Image files are stored unchanged, unless a side is longer than ``max_side`` pixels; such an image is
    scaled down and stored as PNG. The tables are in ``digest`` form (see ``editr1.data.schema``): each distinct image is
    stored once, in ``<stem>.images``. Only a few images are in memory at a time.

    Raises:
        TableError: the table cannot be read, or has a missing or unknown column.
        OSError: ``out`` is not a writable folder; this is checked before anything is read.

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
        images = _Images(folder, max_side, Path(scratch))
        for row in read_import_rows(table):
            rows += 1
            fault = row if isinstance(row, TableError) else _fault(table, row, cases, images)
            if fault is not None:
                problems.append(fault)
            elif isinstance(row, ImportRow):
                cases.setdefault(row.case_id, _Case(row)).add(row)
        writes = cases and (skip_bad or not problems)
        files = _replace(out, cases, images) if writes else []
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
        """Yield each pair as (index of the better row, index of the worse row, label). Indices refer to ``rows``."""
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


class _Images:
    """Images in the imported folder. Each is decoded once to validate it. Downscaled copies are stored in ``scratch``."""

    def __init__(self, folder: Path, max_side: int | None, scratch: Path) -> None:
        self._folder = folder
        self._max_side = max_side
        self._scratch = scratch
        self._faults: dict[str, str] = {}
        self._scaled: dict[str, Path] = {}
        self.read = lru_cache(maxsize=32)(self._read)

    def fault(self, name: str) -> str:
        """Return the reason why the image cannot be used, or an empty string if it can."""
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


def _fault(table: Path, row: ImportRow, cases: dict[str, _Case], images: _Images) -> TableError | None:
    case = cases.get(row.case_id)
    if case is not None:
        for name in ("source", "instruction"):
            wanted = getattr(case.first, name)
            if getattr(row, name) != wanted:
                rule = (
                    f"must be the same in all rows of case {row.case_id!r}, but line {case.first.line} has {wanted!r}"
                )
                return TableError(table, row.line, name, getattr(row, name), rule)
        if row.principles and case.principles and row.principles != case.principles:
            return TableError(
                table, row.line, "principles", None, f"must be the same in all rows of case {row.case_id!r}"
            )
        for other in case.rows:
            if other.edited == row.edited and other.editor == row.editor:
                rule = f"line {other.line} has the same case, edited image and editor {row.editor!r}; remove one of the rows"
                return TableError(table, row.line, "edited", row.edited, rule)
            if (other.rank is None) != (row.rank is None) and (row.preferred or other.preferred):
                name, value = ("rank", row.rank) if row.rank is not None else ("preferred", row.preferred)
                rule = f"all rows of a case must use the same column, rank or preferred; line {other.line} uses the other one"
                return TableError(table, row.line, name, value, rule)
    for name in ("source", "edited"):
        image = getattr(row, name)
        if rule := images.fault(image):
            return TableError(table, row.line, name, image, rule)
    return None


def _check_folder(out: Path) -> None:
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(existing))


def _replace(out: Path, cases: dict[str, _Case], images: _Images) -> list[Path]:
    """Write all tables to a temporary folder, then replace the existing ones. The result never contains both old and new tables."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=out) as scratch:
        files = [path.relative_to(scratch) for path in _write(Path(scratch), cases, images)]
        for name in ("cases", "quadruples", "pairs"):
            table = out / name / f"{name}.parquet"
            table.unlink(missing_ok=True)
            images_path(table).unlink(missing_ok=True)
        for file in files:
            (out / file).parent.mkdir(exist_ok=True)
            os.replace(images_path(Path(scratch) / file), images_path(out / file))
            os.replace(Path(scratch) / file, out / file)
    return [out / file for file in files]


def _write(out: Path, cases: dict[str, _Case], images: _Images) -> list[Path]:
    def edit_case(case: _Case) -> EditCase:
        first = case.first
        return EditCase(
            case_id=first.case_id,
            source=images.read(first.source),
            instruction=first.instruction,
            principles=case.principles,
        )

    def candidate(case: _Case, index: int) -> Candidate:
        row = case.rows[index]
        return Candidate(candidate_id=f"{row.case_id}/{index + 1}", editor=row.editor, image=images.read(row.edited))

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


def format_problem(problem: TableError) -> str:
    """Format a problem as ``file:row: field: value: rule``, which editors and terminals turn into links."""
    where = str(problem.file) if problem.row is None else f"{problem.file}:{problem.row}"
    shown = [] if problem.value is None else [shorten(problem.value)]
    return ": ".join([where, *([problem.field] if problem.field else []), *shown, problem.rule])
