"""Convert a folder of images, and a table that describes them, to tables of cases, quadruples and preference pairs.

The table is CSV (comma, semicolon or tab), JSON Lines, a JSON list or Parquet, with one row per edited image:

============  ==================================================================================================
column        meaning
============  ==================================================================================================
source        path of the source image, relative to the folder; in Parquet also the image itself, as bytes or as
              the ``Image`` feature of Hugging Face Datasets
instruction   the edit instruction
edited        path of the edited image, or the image itself, as for ``source``
editor        the model or person that made the edit
case_id       optional; rows with the same id form a case. Default: one case per (source, instruction)
preferred     optional: ``winner``, ``loser`` or ``same``; within a case every winner beats every loser, and any two
              rows with ``same`` form a "same" pair
rank          optional, instead of ``preferred``: 1 is best; a lower rank beats a higher one, and two rows with equal
              ranks form a "same" pair
principles    optional: JSON list of {"question", "category"}; must be the same in all rows of a case that have it
============  ==================================================================================================

Text is UTF-8, or UTF-16 with a byte order mark. Empty rows are skipped. A table with several votes on the same edited
image of a case is rejected; ``import_columns.HOW_TO_WRITE_VOTES`` explains how to convert such votes.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

from editr1.artifacts.destination import check_no_foreign_files
from editr1.data.errors import TableError, shorten
from editr1.data.import_cases import DroppedPair, ImportCase, check_not_votes_on_pairs, find_pairs
from editr1.data.import_forms import EmbeddedImages
from editr1.data.import_images import ImportImages
from editr1.data.import_table import ImportRow, read_import_rows
from editr1.data.pair_conflicts import PairFault
from editr1.data.schema import images_path
from editr1.data.tables import write_table
from editr1.data.types import Candidate, EditCase, PreferencePair, Quadruple

_TABLES = ("cases", "quadruples", "pairs")


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    ``counts`` has the keys rows, bad_rows (invalid rows), cases, quadruples, pairs (pairs with a winner), same
    ("same" pairs). If pairs were dropped, it also has the key equal_images (the two images were identical) or
    contradicting (the table also states another preference for the same two images). ``problems`` has one error per
    invalid row. ``files`` lists the tables that were written; it is empty if a row was invalid and ``skip_bad`` was
    not set. ``dropped`` lists the dropped pairs.
    """

    counts: dict[str, int]
    problems: list[TableError]
    files: list[Path]
    dropped: list[DroppedPair] = field(default_factory=list)


def import_folder(
    folder: Path, table: Path, out: Path, *, max_side: int | None = None, skip_bad: bool = False
) -> ImportReport:
    """Read ``table`` and the images in ``folder``, and write one table per data type to ``out``.

    The files are ``cases/cases.parquet``, ``quadruples/quadruples.parquet`` and, if the table has preferences,
    ``pairs/pairs.parquet``. The tables of an earlier import in ``out`` are replaced.

    All rows and images are checked first. If one is invalid, nothing is written; with ``skip_bad``, the invalid rows
    are skipped instead. Image files are stored unchanged, unless a side is longer than ``max_side`` pixels; such an
    image is scaled down and stored as PNG. The tables are in ``digest`` form (see ``editr1.data.schema``): each
    distinct image is stored once, in ``<stem>.images``. Only a few images are in memory at a time. A pair is dropped
    if its two images are identical, or if the table also states a different preference for the same two images.

    Raises:
        TableError: the table cannot be read, has a missing or unknown column, or contains votes on pairs.
        OSError: ``out`` is not a writable folder; this is checked before anything is read.
        UnusableFolder: a folder of a table contains other files; this is checked before anything is read, too.

    Example:
        ``import_folder(Path("photos"), Path("photos/table.csv"), Path("photos-data"), max_side=512)``
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: {max_side}: must be at least 1")
    _check_folder(out)
    cases: dict[str, ImportCase] = {}
    problems: list[TableError] = []
    rows = 0
    with TemporaryDirectory(prefix="editr1-import-") as scratch:
        embedded = EmbeddedImages(Path(scratch))
        images = ImportImages(folder, embedded, max_side, Path(scratch))
        for row in read_import_rows(table, embedded):
            rows += 1
            fault = row if isinstance(row, TableError) else _fault(table, row, cases, images)
            if fault is not None:
                problems.append(fault)
            elif isinstance(row, ImportRow):
                cases[row.case_id].add(row)
        cases = {case_id: case for case_id, case in cases.items() if case.rows}
        check_not_votes_on_pairs(table, cases.values(), images)
        dropped = find_pairs(cases.values(), images)
        writes = cases and (skip_bad or not problems)
        files = _replace(out, cases, images) if writes else []
    labels = Counter(pair.label for case in cases.values() for pair in case.pairs)
    faults = Counter(pair.fault for pair in dropped)
    counts = {
        "rows": rows,
        "bad_rows": len(problems),
        "cases": len(cases),
        "quadruples": sum(len(case.rows) for case in cases.values()),
        "pairs": labels["winner"],
        "same": labels["same"],
        **{str(fault): faults[fault] for fault in PairFault if faults[fault]},
    }
    return ImportReport(counts, problems, files, dropped)


def _fault(table: Path, row: ImportRow, cases: dict[str, ImportCase], images: ImportImages) -> TableError | None:
    """Return the first violation in a row, or None if the row is valid.

    The case of a valid row is created if it does not exist yet.
    """
    case = cases.get(row.case_id)
    if case is not None and (fault := _difference(table, row, case)):
        return fault
    for name in ("source", "edited"):
        image = getattr(row, name)
        if rule := images.fault(image):
            return TableError(table, row.number, name, image, rule)
    case = cases.setdefault(row.case_id, ImportCase(row))
    case.rated.append(row)
    for other in case.rows:
        if other.edited == row.edited and other.editor == row.editor:
            rule = (
                f"{other.place} has the same case, the same edited image and the same editor {row.editor!r}; "
                "remove one of the rows"
            )
            return TableError(table, row.number, "edited", row.edited, rule)
    return None


def _difference(table: Path, row: ImportRow, case: ImportCase) -> TableError | None:
    """Return the first value of a row that contradicts the other rows of its case, or None."""
    for name in ("source", "instruction"):
        wanted, value = getattr(case.first, name), getattr(row, name)
        if normalize("NFC", value) != normalize("NFC", wanted):
            rule = f"must be the same in all rows of case {row.case_id!r}, but {case.first.place} has {wanted!r}"
            return TableError(table, row.number, name, value, rule)
    if row.principles and case.principles and row.principles != case.principles:
        rule = f"must be the same in all rows of case {row.case_id!r}"
        return TableError(table, row.number, "principles", None, rule)
    for other in case.rows:
        if (other.rank is None) != (row.rank is None) and (row.preferred or other.preferred):
            name, value = ("rank", row.rank) if row.rank is not None else ("preferred", row.preferred)
            rule = (
                f"all rows of a case must use the same column, either rank or preferred; {other.place} uses the "
                "other column"
            )
            return TableError(table, row.number, name, value, rule)
    return None


def _check_folder(out: Path) -> None:
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(existing))
    for name in _TABLES:
        table = Path(f"{name}.parquet")
        check_no_foreign_files(out / name, {table.name, images_path(table).name})


def _replace(out: Path, cases: dict[str, ImportCase], images: ImportImages) -> list[Path]:
    """Write all tables to a temporary folder, then replace the existing ones. The result never contains both old and new tables."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=out) as scratch:
        files = [path.relative_to(scratch) for path in _write(Path(scratch), cases, images)]
        for name in _TABLES:
            table = out / name / f"{name}.parquet"
            table.unlink(missing_ok=True)
            images_path(table).unlink(missing_ok=True)
        for file in files:
            (out / file).parent.mkdir(exist_ok=True)
            os.replace(images_path(Path(scratch) / file), images_path(out / file))
            os.replace(Path(scratch) / file, out / file)
    return [out / file for file in files]


def _write(out: Path, cases: dict[str, ImportCase], images: ImportImages) -> list[Path]:
    def edit_case(case: ImportCase) -> EditCase:
        first = case.first
        return EditCase(
            case_id=first.case_id,
            source=images.read(first.source),
            instruction=first.instruction,
            principles=case.principles,
        )

    def candidate(case: ImportCase, index: int) -> Candidate:
        row = case.rows[index]
        return Candidate(candidate_id=f"{row.case_id}/{index + 1}", editor=row.editor, image=images.read(row.edited))

    def quadruples() -> Iterator[Quadruple]:
        for case in cases.values():
            for index in range(len(case.rows)):
                yield Quadruple(case=edit_case(case), candidate=candidate(case, index))

    def pairs() -> Iterator[PreferencePair]:
        for case in cases.values():
            for pair in case.pairs:
                yield PreferencePair(
                    pair_id=f"{case.first.case_id}/{pair.better + 1}-{pair.worse + 1}",
                    case=edit_case(case),
                    winner=candidate(case, pair.better),
                    loser=candidate(case, pair.worse),
                    label="same" if pair.label == "same" else "winner",
                )

    files = [out / "cases" / "cases.parquet", out / "quadruples" / "quadruples.parquet"]
    write_table(files[0], map(edit_case, cases.values()), EditCase, images="digest")
    write_table(files[1], quadruples(), Quadruple, images="digest")
    if any(case.pairs for case in cases.values()):
        files.append(out / "pairs" / "pairs.parquet")
        write_table(files[2], pairs(), PreferencePair, images="digest")
    return files


def format_problem(problem: TableError) -> str:
    """Format a problem as ``file:row: field: value: rule``. Editors and terminals turn this form into a link."""
    where = str(problem.file) if problem.row is None else f"{problem.file}:{problem.row}"
    shown = [] if problem.value is None else [shorten(problem.value)]
    return ": ".join([where, *([problem.field] if problem.field else []), *shown, problem.rule])
