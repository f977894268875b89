"""Group the rows of an import table into cases, and derive the preference pairs of each case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from editr1.data.errors import TableError
from editr1.data.import_columns import HOW_TO_WRITE_VOTES
from editr1.data.import_images import ImportImages
from editr1.data.import_table import ImportRow
from editr1.data.pair_conflicts import PairConflicts, PairFault
from editr1.data.types import Principle, case_digest_of


@dataclass(frozen=True)
class Preference:
    """A preference pair of a case. ``better`` and ``worse`` are indices into the case's list of rows."""

    better: int
    worse: int
    label: str


@dataclass
class ImportCase:
    """A case and its valid rows. ``rated`` also contains the rows that duplicate an earlier row."""

    first: ImportRow
    rows: list[ImportRow] = field(default_factory=list)
    rated: list[ImportRow] = field(default_factory=list)
    principles: tuple[Principle, ...] = ()
    pairs: list[Preference] = field(default_factory=list)

    def add(self, row: ImportRow) -> None:
        """Add a valid row."""
        self.rows.append(row)
        self.principles = self.principles or row.principles

    def preferences(self) -> Iterator[Preference]:
        """Yield the pairs that follow from the columns ``preferred`` and ``rank``."""
        for one, other in combinations(range(len(self.rows)), 2):
            a, b = self.rows[one], self.rows[other]
            if a.rank is not None and b.rank is not None:
                label = "same" if a.rank == b.rank else "winner"
                yield Preference(one, other, label) if a.rank <= b.rank else Preference(other, one, label)
            elif (a.preferred, b.preferred) == ("winner", "loser"):
                yield Preference(one, other, "winner")
            elif (a.preferred, b.preferred) == ("loser", "winner"):
                yield Preference(other, one, "winner")
            elif (a.preferred, b.preferred) == ("same", "same"):
                yield Preference(one, other, "same")


@dataclass(frozen=True)
class DroppedPair:
    """A pair that was not imported, with the positions of its two rows in the table and the reason."""

    places: tuple[str, str]
    fault: PairFault

    def __str__(self) -> str:
        return f"{self.places[0]} and {self.places[1]}: pair dropped: {self.fault.rule}"


def find_pairs(cases: Collection[ImportCase], images: ImportImages) -> list[DroppedPair]:
    """Set the attribute ``pairs`` of every case, and return the pairs that must not be used."""
    stated = PairConflicts()
    for case, pair in _stated(cases):
        stated.add(*_digests(case, pair, images), pair.label)
    dropped = []
    for case, pair in _stated(cases):
        fault = stated.fault(*_digests(case, pair, images))
        if fault is None:
            case.pairs.append(pair)
        else:
            dropped.append(DroppedPair((case.rows[pair.better].place, case.rows[pair.worse].place), fault))
    return dropped


def check_not_votes_on_pairs(table: Path, cases: Collection[ImportCase], images: ImportImages) -> None:
    """Reject a table whose rows are votes on pairs of edited images (two rows per vote) instead of one ranking per case.

    In such a table, a case contains the same image from the same editor several times. If the table were read as a
    ranking, images would be paired with themselves and ties would become wins.

    Raises:
        TableError: At least one case can only be interpreted as votes. The error names the first such case.
    """
    found = [(case, again) for case in cases if (again := _image_in_several_votes(case, images))]
    if found:
        case, again = found[0]
        places = ", ".join(str(row.number) for row in again)
        rule = (
            "the rows are votes on pairs of edited images instead of one ranking per case: case "
            f"{case.first.case_id!r} has the same image from editor {again[0].editor!r} in {again[0].unit}s "
            f"{places} with different preferences; {len(found)} of {len(cases)} cases contain such rows. "
            f"{HOW_TO_WRITE_VOTES}"
        )
        raise TableError(table, again[0].number, None, None, rule)


def _image_in_several_votes(case: ImportCase, images: ImportImages) -> list[ImportRow]:
    """Return the rows of the first image that occurs in several votes of a case, or an empty list.

    Rows are votes if one image from one editor has different preferences, or if consecutive rows form several
    different votes. A row that only duplicates another row is a mistake, but not a vote.
    """
    rated = [row for row in case.rated if row.preferred is not None or row.rank is not None]
    by_image: dict[tuple[str, str], list[ImportRow]] = defaultdict(list)
    for row in rated:
        by_image[images.digest(row.edited), row.editor].append(row)
    repeated = [rows for rows in by_image.values() if len(rows) > 1]
    if not repeated:
        return []
    differing = [rows for rows in repeated if len({(row.preferred, row.rank) for row in rows}) > 1]
    if differing:
        return differing[0]
    return repeated[0] if _number_of_votes(rated, images) > 1 else []


def _number_of_votes(rows: list[ImportRow], images: ImportImages) -> int:
    """Return the number of different votes if each two consecutive rows form a vote, and otherwise 0."""
    votes = set()
    for one, other in zip(rows[::2], rows[1::2], strict=False):
        both = {one.preferred, other.preferred}
        ranks = (one.rank, other.rank)
        if both not in ({"winner", "loser"}, {"same"}) and not (None not in ranks and {*ranks} <= {1, 2}):
            return 0
        votes.add((images.digest(one.edited), images.digest(other.edited), one.preferred, *ranks))
    return len(votes) if len(rows) % 2 == 0 else 0


def _stated(cases: Collection[ImportCase]) -> Iterator[tuple[ImportCase, Preference]]:
    for case in cases:
        for pair in case.preferences():
            yield case, pair


def _digests(case: ImportCase, pair: Preference, images: ImportImages) -> tuple[str, str, str]:
    return (
        case_digest_of(images.digest(case.first.source), case.first.instruction),
        images.digest(case.rows[pair.better].edited),
        images.digest(case.rows[pair.worse].edited),
    )
