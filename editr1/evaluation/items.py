"""Read and write files with all evaluated edits.

With these files, every metric can be recomputed without a model, and two evaluations can be compared edit by edit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from editr1.data.images import decode_image
from editr1.data.types import (
    Bit,
    Candidate,
    Category,
    DataModel,
    EditCase,
    EncodedImage,
    PreferencePair,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    outcomes_fault,
)
from editr1.evaluation.editor_eval import EditRow
from editr1.evaluation.judge import Judge, Refused
from editr1.evaluation.pairs import PairScores
from editr1.evaluation.scoring import GroundTruth, Scorer, ScorerError, TrueScore, score_or_none

PAIRS_FILE = "pairs.jsonl"
EDITS_FILE = "edits.jsonl"
PUBLIC_FILE = "public.jsonl"

N = TypeVar("N", bound=DataModel)


class TruthItem(DataModel):
    """Ground truth of an edit: its score in [0, 10], and the fraction of satisfied principles per category.

    ``verdicts`` contains the correct answer to each principle of the case: 1 for yes, 0 for no.
    """

    score: float
    follow: float
    keep: float
    quality: float
    verdicts: tuple[Bit, ...] = ()


class Answers(DataModel):
    """The verifier's output for one edit.

    Attributes:
        traces: All raw traces, in the order of generation.
        verdicts: The answers to the principles of the case, one list for each trace that could be parsed.
        scores: The final score of each of these traces, in [0, 10]. The score of the edit is their mean.
        num_parsed: Number of traces that could be parsed. If the edit has no score, ``verdicts`` is empty nevertheless.
        unparsed: For each other trace, the reason why it could not be parsed.
        failure: The reason why the edit has no score: its cause and details, or an empty string.
    """

    traces: tuple[str, ...] = ()
    verdicts: tuple[tuple[Bit, ...], ...] = ()
    scores: tuple[float, ...] = ()
    num_parsed: int = 0
    unparsed: tuple[str, ...] = ()
    failure: str = ""


class PairEdit(DataModel):
    """One edit of a preference pair. ``image`` is the SHA-256 of its image file.

    ``truth`` is None if the ground truth is unknown.
    """

    image: str
    answers: Answers
    truth: TruthItem | None = None


class PairItem(DataModel):
    """Scores of a preference pair by one verifier, and the data from which they were computed.

    Attributes:
        pair_id: Name of the pair.
        verifier: "sft" or "rl": the name of the verifier among the inputs of the evaluate stage.
        winner: Score of the edit that people preferred, or None if scoring failed.
        loser: Score of the other edit, or None if scoring failed.
        label: "same" if people preferred neither edit. Such a pair is not scored.
        case_id: Name of the pair's case.
        source: SHA-256 of the file of the case's source image.
        categories: Category of each principle of the case.
        num_traces: Number of traces that were requested per edit.
        winner_edit: The preferred edit, or None if the pair was not scored.
        loser_edit: The other edit, or None if the pair was not scored.
    """

    pair_id: str
    verifier: str
    winner: float | None
    loser: float | None
    label: Literal["winner", "same"] = "winner"
    case_id: str = ""
    source: str = ""
    categories: tuple[Category, ...] = ()
    num_traces: int = 1
    winner_edit: PairEdit | None = None
    loser_edit: PairEdit | None = None


class EditItem(DataModel):
    """Scores of one editor's edit, and the data from which they were computed.

    Attributes:
        case_id: Name of the case.
        editor: "before" or "after": the name of the editor among the inputs of the evaluate stage.
        truth: Ground truth of the edit, or None if it is unknown.
        score: The verifier's score, or None if scoring failed or was not requested.
        source: SHA-256 of the file of the case's source image.
        image: SHA-256 of the edited image as PNG.
        categories: Category of each principle of the case.
        answers: The verifier's output for the edit, or None if its score was not requested.
    """

    case_id: str
    editor: str
    truth: TruthItem | None
    score: float | None
    source: str = ""
    image: str = ""
    categories: tuple[Category, ...] = ()
    answers: Answers | None = None


class PublicItem(DataModel):
    """One request about an edit of a public benchmark, and its result.

    Images are identified by the SHA-256 of their files. The requests of a table are in the order of the benchmark's rows, and
    an edit is scored once. The request of a row is therefore found by the source image and ``text``, and by its place among the
    requests with the same source image and text. Edits of cases without principles have no request.

    Attributes:
        table: The benchmark, as its input is called, and the title of the evaluated model, such as "gedit, editor after RL".
        images: The source image, if it was sent to the model, and the edited image, both as they were sent.
        text: The instruction of the case, or the judge's prompt.
        score: The verifier's score, or None if scoring failed or the request was sent to a judge.
        categories: Category of each principle, if the request was sent to a verifier.
        answers: The verifier's output. The answer of a judge is stored as a single trace.
    """

    table: str
    images: tuple[str, ...]
    text: str
    score: float | None = None
    categories: tuple[Category, ...] = ()
    answers: Answers


def recorded_scorer(scorer: Scorer, table: str, items: list[PublicItem]) -> Scorer:
    """Return a function that scores edits with ``scorer`` and appends one item per edit to ``items``."""

    def score(edits: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        outcomes = scorer(edits)
        if fault := outcomes_fault(edits, outcomes):
            raise ScorerError(f"the scorer did not return the outcomes of its items: {fault}")
        items.extend(
            PublicItem(
                table=table,
                images=(edit.source.sha256, edit.edited.sha256),
                text=edit.instruction,
                score=score_or_none(outcome),
                categories=tuple(principle.category for principle in edit.principles),
                answers=_answers(outcome),
            )
            for edit, outcome in zip(edits, outcomes, strict=True)
        )
        return outcomes

    return score


def recorded_judge(judge: Judge, table: str, items: list[PublicItem]) -> Judge:
    """Return a function that calls ``judge`` and appends one item per answer to ``items``."""

    def ask(prompt: str, images: Sequence[EncodedImage]) -> str | Refused:
        answer = judge(prompt, images)
        answers = Answers(failure=answer.reason) if isinstance(answer, Refused) else Answers(traces=(answer,))
        items.append(
            PublicItem(table=table, images=tuple(image.sha256 for image in images), text=prompt, answers=answers)
        )
        return answer

    return ask


def pair_items(
    verifier: str, pairs: Iterable[PreferencePair], scores: PairScores, truth: GroundTruth | None = None
) -> Iterator[PairItem]:
    """Yield one item per pair, in order, with the scores of the verifier named ``verifier``.

    ``pairs`` are the evaluated pairs, including those without a preference, which ``scores`` does not contain.
    """
    scored = {
        pair.pair_id: outcomes for pair, *outcomes in zip(scores.pairs, scores.winners, scores.losers, strict=True)
    }
    for pair in pairs:
        winner, loser = scored.get(pair.pair_id, (None, None))
        yield PairItem(
            pair_id=pair.pair_id,
            verifier=verifier,
            winner=score_or_none(winner),
            loser=score_or_none(loser),
            label=pair.label,
            case_id=pair.case.case_id,
            source=pair.case.source.sha256,
            categories=_categories(pair.case),
            num_traces=scores.num_traces,
            winner_edit=_pair_edit(pair.case, pair.winner, winner, truth),
            loser_edit=_pair_edit(pair.case, pair.loser, loser, truth),
        )


def edit_items(editor: str, rows: Sequence[EditRow]) -> Iterator[EditItem]:
    """Yield one item per edit, in order, for the edits of the editor named ``editor``."""
    for row in rows:
        yield EditItem(
            case_id=row.case.case_id,
            editor=editor,
            truth=_truth(row.truth),
            score=score_or_none(row.outcome),
            source=row.case.source.sha256,
            image=hashlib.sha256(row.image).hexdigest(),
            categories=_categories(row.case),
            answers=None if row.outcome is None else _answers(row.outcome),
        )


def write_items(file: Path, items: Iterable[DataModel]) -> None:
    """Write ``items`` to ``file``, one JSON object per line."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(item.model_dump_json() + "\n" for item in items)


def read_items(file: Path, kind: type[N]) -> list[N]:
    """Read items of type ``kind`` from a file that :func:`write_items` wrote.

    Raises:
        pydantic.ValidationError: A line is not a valid item of this type.
    """
    return [kind.model_validate_json(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _pair_edit(
    case: EditCase, edit: Candidate, outcome: ScoreOutcome | None, truth: GroundTruth | None
) -> PairEdit | None:
    if outcome is None:
        return None
    known = _truth(truth(case, decode_image(edit.image.data))) if truth else None
    return PairEdit(image=edit.image.sha256, answers=_answers(outcome), truth=known)


def _answers(outcome: ScoreOutcome) -> Answers:
    if isinstance(outcome, ScoreFailure):
        failure = f"{outcome.cause.value}: {outcome.detail}"
        return Answers(traces=outcome.texts, num_parsed=outcome.num_parsed, failure=failure)
    return Answers(
        traces=outcome.texts or tuple(verdict.reasoning for verdict in outcome.verdicts),
        verdicts=tuple(verdict.scores for verdict in outcome.verdicts),
        scores=tuple(verdict.score for verdict in outcome.verdicts),
        num_parsed=len(outcome.verdicts),
        unparsed=outcome.unparsed,
    )


def _categories(case: EditCase) -> tuple[Category, ...]:
    return tuple(principle.category for principle in case.principles)


def _truth(truth: TrueScore | None) -> TruthItem | None:
    if truth is None:
        return None
    return TruthItem(
        score=truth.score,
        follow=truth.follow,
        keep=truth.keep,
        quality=truth.quality,
        verdicts=tuple(truth.verdicts),
    )
