"""The items behind an evaluation's figures, so that others can compare evaluations pair by pair and case by case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from editr1.data.types import DataModel
from editr1.evaluation.editor_eval import EditRow
from editr1.evaluation.pairs import PairScores
from editr1.evaluation.scoring import TruthReading, value

PAIRS_FILE = "pairs.jsonl"
EDITS_FILE = "edits.jsonl"

N = TypeVar("N", bound=DataModel)


class PairItem(DataModel):
    """A decided pair as one verifier scored it; None where scoring failed. ``verifier`` is the input's name."""

    pair_id: str
    verifier: str
    winner: float | None
    loser: float | None


class TruthItem(DataModel):
    """What is true of an edit: score in [0, 10], shares in [0, 1]."""

    score: float
    follow: float
    keep: float
    quality: float


class EditItem(DataModel):
    """An edit of a case by one editor (the input's name), its truth and the verifier's score where they were asked for."""

    case_id: str
    editor: str
    truth: TruthItem | None
    score: float | None


def pair_items(verifier: str, scores: PairScores) -> list[PairItem]:
    """The decided pairs of ``scores`` in order."""
    sides = zip(scores.pairs, scores.winners, scores.losers, strict=True)
    return [PairItem(pair_id=p.pair_id, verifier=verifier, winner=value(w), loser=value(lo)) for p, w, lo in sides]


def edit_items(editor: str, rows: Sequence[EditRow]) -> list[EditItem]:
    """The rows in order."""
    return [
        EditItem(case_id=row.case.case_id, editor=editor, truth=_truth(row.truth), score=value(row.outcome))
        for row in rows
    ]


def write_items(file: Path, items: Iterable[DataModel]) -> None:
    """One JSON object a line."""
    file.write_text("".join(item.model_dump_json() + "\n" for item in items), encoding="utf-8")


def read_items(file: Path, kind: type[N]) -> list[N]:
    """What :func:`write_items` wrote. Raises pydantic's ValidationError for a line that is no ``kind``."""
    return [kind.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _truth(reading: TruthReading | None) -> TruthItem | None:
    if reading is None:
        return None
    return TruthItem(score=reading.score, follow=reading.follow, keep=reading.keep, quality=reading.quality)
