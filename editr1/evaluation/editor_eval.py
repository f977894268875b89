"""An editor on held-out cases: edited, scored by a verifier, and measured by the truth where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL.Image import Image, Resampling

from editr1.data.errors import DataError
from editr1.data.images import decode_image, encode_png, resized_to
from editr1.data.types import EditCase, EncodedImage, Scored, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, gsb, mean_estimate, paired_difference
from editr1.evaluation.report.model import EditorFigures, EditView, GalleryCase, PrincipleView, ScoreParts
from editr1.evaluation.scoring import Scorer, Truth, TruthReading, batches, score_in_batches

EditFunction = Callable[[Sequence[Image], Sequence[str]], Sequence[Image]]
"""Edits pictures (mode RGB) as instructed; one edited picture each, in order."""

_PARTS = ("score", "follow", "keep", "quality")


class EditRow(NamedTuple):
    """One edited case. ``image`` is a PNG; ``outcome`` and ``truth`` are None where nobody was asked."""

    case: EditCase
    image: bytes
    outcome: ScoreOutcome | None = None
    truth: TruthReading | None = None


def evaluate_editor(
    cases: Sequence[EditCase],
    edit: EditFunction,
    *,
    scorer: Scorer | None = None,
    truth: Truth | None = None,
    batch: int = 64,
    score_batch: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> list[EditRow]:
    """Edit every case once, then ask verifier and truth.

    The truth reads the picture as it was stored (8-bit PNG), as the verifier does. Sampling seeds are the business of
    ``edit``: give both editors the same. With a scorer every case needs principles (DataError before any editing).
    """
    if scorer is not None:
        for case in cases:
            if not case.principles:
                raise DataError(f"case {case.case_id} has no principles to judge by")
    rows: list[EditRow] = []
    for part in batches(cases, batch):
        sources = [decode_image(case.source.data) for case in part]
        edited = edit(sources, [case.instruction for case in part])
        if len(edited) != len(part):
            raise ValueError(f"the editor gave {len(edited)} pictures for {len(part)} cases")
        for case, picture in zip(part, edited, strict=True):
            png = encode_png(picture)
            rows.append(EditRow(case, png, None, truth(case, decode_image(png)) if truth else None))
        on_batch(len(part))
    if scorer is None:
        return rows
    return rescored(rows, scorer, None, 0, batch=score_batch, max_failed_fraction=max_failed_fraction)


def rescored(
    rows: Sequence[EditRow],
    scorer: Scorer,
    n: int | None,
    seed: int,
    *,
    batch: int = 64,
    max_failed_fraction: float = 1.0,
) -> list[EditRow]:
    """``rows`` with the verifier's outcome on the ``n`` that :func:`gallery` draws by ``seed``; None means all."""
    chosen = list(range(len(rows))) if n is None else drawn(len(rows), n, seed)
    items = (_question(rows[i]) for i in chosen)
    outcomes = dict(
        zip(chosen, score_in_batches(items, scorer, batch=batch, max_failed_fraction=max_failed_fraction), strict=True)
    )
    return [row._replace(outcome=outcomes.get(i, row.outcome)) for i, row in enumerate(rows)]


def drawn(total: int, n: int, seed: int) -> list[int]:
    """``n`` of ``total`` indexes at random, in order: nobody chose them."""
    found: list[int] = sorted(np.random.default_rng(seed).permutation(total)[:n].tolist())
    return found


def editor_figures(
    before: Sequence[EditRow],
    after: Sequence[EditRow],
    judge: Literal["truth", "verifier"],
    *,
    success_at: float = 9.0,
    bootstrap: Bootstrap = DEFAULT,
) -> EditorFigures:
    """Means before and after and their paired difference, over the cases that the judge scored in both.

    ``success`` is the share of true scores of at least ``success_at``. The verifier as judge gives the score alone:
    its opinion has no parts. Where no case has both scores nothing is measured. ValueError when the cases differ.
    """
    if [row.case.case_id for row in before] != [row.case.case_id for row in after]:
        raise ValueError("before and after do not hold the same cases in the same order")
    both = [(_read(b, judge, success_at), _read(a, judge, success_at)) for b, a in zip(before, after, strict=True)]
    kept = [(b, a) for b, a in both if b is not None and a is not None]
    if not kept:
        return EditorFigures(judge=judge, before=ScoreParts(), after=ScoreParts(), gain=ScoreParts(), failed=len(both))

    def parts(measure: Callable[[list[float], list[float]], Estimate]) -> ScoreParts:
        return ScoreParts(
            **{name: measure([b[name] for b, _ in kept], [a[name] for _, a in kept]) for name in kept[0][0]}
        )

    return EditorFigures(
        judge=judge,
        before=parts(lambda b, _a: mean_estimate(b, bootstrap)),
        after=parts(lambda _b, a: mean_estimate(a, bootstrap)),
        gain=parts(lambda b, a: paired_difference(a, b, bootstrap)),
        gsb=gsb([a["score"] for _, a in kept], [b["score"] for b, _ in kept], bootstrap),
        failed=len(both) - len(kept),
    )


def gallery(before: Sequence[EditRow], after: Sequence[EditRow], n: int, seed: int) -> tuple[GalleryCase, ...]:
    """``n`` cases drawn at random by ``seed``, in the order of the data: nobody chose them."""
    return tuple(
        GalleryCase(
            case_id=before[i].case.case_id,
            instruction=before[i].case.instruction,
            source=before[i].case.source.data,
            before=edit_view(before[i]),
            after=edit_view(after[i]),
        )
        for i in drawn(len(before), n, seed)
    )


def edit_view(row: EditRow) -> EditView:
    """A row as the report shows it: the first parsed trace beside the true answers."""
    outcome = row.outcome
    verdict = outcome.verdicts[0] if isinstance(outcome, Scored) and outcome.verdicts else None
    said = verdict.scores if verdict else (None,) * len(row.case.principles)
    known = row.truth.verdicts if row.truth and len(row.truth.verdicts) == len(row.case.principles) else None
    return EditView(
        image=row.image,
        score=outcome.score if isinstance(outcome, Scored) else None,
        true_score=row.truth.score if row.truth else None,
        reasoning=verdict.reasoning.strip() if verdict else "",
        failure=f"{outcome.cause.value}: {outcome.detail}" if isinstance(outcome, ScoreFailure) else "",
        principles=tuple(
            PrincipleView(
                question=principle.question,
                category=principle.category,
                said=said[i],
                truth=None if known is None else known[i],
            )
            for i, principle in enumerate(row.case.principles)
        ),
    )


def _question(row: EditRow) -> ScoreItem:
    """The source is shown at the size of the edit, as in training, so that only the edit differs."""
    case = row.case
    return ScoreItem(
        source=EncodedImage(data=resized_to(case.source.data, row.image, Resampling.LANCZOS)),
        edited=EncodedImage(data=row.image),
        instruction=case.instruction,
        principles=case.principles,
    )


def _read(row: EditRow, judge: str, success_at: float) -> dict[str, float] | None:
    """The parts that the judge gives to an edit, None where it gives none."""
    if judge == "truth":
        if row.truth is None:
            return None
        parts = {name: float(getattr(row.truth, name)) for name in _PARTS}
        return {**parts, "success": float(row.truth.score >= success_at)}
    return {"score": row.outcome.score} if isinstance(row.outcome, Scored) else None
