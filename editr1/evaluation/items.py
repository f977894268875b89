"""Files with the score of every edit in an evaluation, so that two evaluations can be compared edit by edit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from editr1.data.types import DataModel
from editr1.evaluation.editor_eval import EditRow
from editr1.evaluation.pairs import PairScores
from editr1.evaluation.scoring import TrueScore, score_or_none

PAIRS_FILE = "pairs.jsonl"
EDITS_FILE = "edits.jsonl"

N = TypeVar("N", bound=DataModel)


class PairItem(DataModel):
    """Scores of a preference pair: ``winner`` for the edit that people preferred, and ``loser`` for the other edit.

    A score is None if scoring failed. ``verifier`` is "sft" or "rl": the name of the verifier among the inputs of the
    evaluate stage.
    """

    pair_id: str
    verifier: str
    winner: float | None
    loser: float | None


class TruthItem(DataModel):
    """Ground truth of an edit: its score in [0, 10], and the fraction of satisfied principles per category."""

    score: float
    follow: float
    keep: float
    quality: float


class EditItem(DataModel):
    """Scores of one edit: ``truth`` is its ground truth, and ``score`` is the verifier's score.

    ``truth`` is None if the ground truth is unknown. ``score`` is None if scoring failed or was not requested.
    ``editor`` is "before" or "after": the name of the editor among the inputs of the evaluate stage.
    """

    case_id: str
    editor: str
    truth: TruthItem | None
    score: float | None


def pair_items(verifier: str, scores: PairScores) -> list[PairItem]:
    """Return one item per pair, in order, with the scores of the verifier named ``verifier``."""
    sides = zip(scores.pairs, scores.winners, scores.losers, strict=True)
    return [
        PairItem(pair_id=p.pair_id, verifier=verifier, winner=score_or_none(w), loser=score_or_none(lo))
        for p, w, lo in sides
    ]


def edit_items(editor: str, rows: Sequence[EditRow]) -> list[EditItem]:
    """Return one item per edit, in order, for the edits of the editor named ``editor``."""
    return [
        EditItem(case_id=row.case.case_id, editor=editor, truth=_truth(row.truth), score=score_or_none(row.outcome))
        for row in rows
    ]


def write_items(file: Path, items: Iterable[DataModel]) -> None:
    """Write ``items`` to ``file``, one JSON object per line."""
    file.write_text("".join(item.model_dump_json() + "\n" for item in items), encoding="utf-8")


def read_items(file: Path, kind: type[N]) -> list[N]:
    """Read items of type ``kind`` from a file that :func:`write_items` wrote.

    Raises:
        pydantic.ValidationError: A line is not a valid item of this type.
    """
    return [kind.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _truth(truth: TrueScore | None) -> TruthItem | None:
    if truth is None:
        return None
    return TruthItem(score=truth.score, follow=truth.follow, keep=truth.keep, quality=truth.quality)
