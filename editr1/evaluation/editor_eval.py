"""Evaluate an editor on held-out cases.

A verifier scores the edits. If the ground truth is known, ground-truth scores are computed as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL.Image import Image, Resampling

from editr1.data.errors import DataError
from editr1.data.images import decode_image, encode_png, resized_to
from editr1.data.types import EditCase, EncodedImage, Scored, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, gsb, mean_estimate, paired_difference
from editr1.evaluation.report.model import EditorMetrics, EditView, GalleryCase, PrincipleView, ScoreParts
from editr1.evaluation.resampling import case_groups
from editr1.evaluation.scoring import GroundTruth, Scorer, TrueScore, batches, failures, score_in_batches

EditFunction = Callable[[Sequence[Image], Sequence[str]], Sequence[Image]]
"""Function that edits images. Its arguments are the source images (mode RGB) and one instruction per image.

Returns one edited image per source image, in order.
"""

_PARTS = ("score", "follow", "keep", "quality")


class EditRow(NamedTuple):
    """A case and its edit. ``image`` is the edited image as PNG.

    ``outcome`` is the verifier's score or the reason why scoring failed. ``truth`` is the ground truth of the
    edit. ``outcome`` and ``truth`` are None if they were not computed.
    """

    case: EditCase
    image: bytes
    outcome: ScoreOutcome | None = None
    truth: TrueScore | None = None


def evaluate_editor(
    cases: Sequence[EditCase],
    edit: EditFunction,
    *,
    scorer: Scorer | None = None,
    truth: GroundTruth | None = None,
    batch_size: int = 64,
    score_batch_size: int = 64,
    max_failed_fraction: float = 1.0,
    on_batch: Callable[[int], None] = lambda _n: None,
) -> list[EditRow]:
    """Edit every case once and score the edits.

    Scores are computed from the edited image as it is stored (8-bit PNG). ``edit`` chooses the sampling seeds. To
    compare two editors, use the same seeds for both.

    Args:
        cases: Cases to edit. If ``scorer`` is given, each case must have principles.
        edit: Function that calls the editor.
        scorer: Function that scores edits with the verifier, or None to skip the verifier's scores.
        truth: Function that computes the ground-truth score of an edit, or None to skip these scores.
        batch_size: Maximum number of cases per call of ``edit``.
        score_batch_size: Maximum number of edits per call of ``scorer``.
        max_failed_fraction: Largest allowed fraction of edits for which ``scorer`` returns no score.
        on_batch: Called after each batch of edits with the number of cases in it.

    Raises:
        DataError: A scorer is given and a case has no principles. Raised before any case is edited.
        TooManyFailures: The fraction of failed scores exceeds ``max_failed_fraction``.
    """
    if scorer is not None:
        for case in cases:
            if not case.principles:
                raise DataError(f"case {case.case_id} has no principles; add at least one for the verifier")
    rows: list[EditRow] = []
    for part in batches(cases, batch_size):
        sources = [decode_image(case.source.data) for case in part]
        edited = edit(sources, [case.instruction for case in part])
        if len(edited) != len(part):
            raise ValueError(
                f"the function edit returned {len(edited)} images for {len(part)} cases; it must return one image per case"
            )
        for case, image in zip(part, edited, strict=True):
            png = encode_png(image)
            rows.append(EditRow(case, png, None, truth(case, decode_image(png)) if truth else None))
        on_batch(len(part))
    if scorer is None:
        return rows
    return with_scores(rows, scorer, None, 0, batch_size=score_batch_size, max_failed_fraction=max_failed_fraction)


def with_scores(
    rows: Sequence[EditRow],
    scorer: Scorer,
    n: int | None,
    seed: int,
    *,
    batch_size: int = 64,
    max_failed_fraction: float = 1.0,
) -> list[EditRow]:
    """Score ``n`` rows with the verifier, or all rows if ``n`` is None.

    The result contains all rows, including those without a score. The scored rows are the same ``n`` rows that
    :func:`gallery` draws with this ``seed``.
    """
    chosen = list(range(len(rows))) if n is None else draw_indices(len(rows), n, seed)
    items = (_score_item(rows[i]) for i in chosen)
    outcomes = dict(
        zip(
            chosen,
            score_in_batches(items, scorer, batch_size=batch_size, max_failed_fraction=max_failed_fraction),
            strict=True,
        )
    )
    return [row._replace(outcome=outcomes.get(i, row.outcome)) for i, row in enumerate(rows)]


def draw_indices(total: int, n: int, seed: int) -> list[int]:
    """Draw ``n`` distinct indices from 0 to ``total`` - 1 at random with ``seed``, and return them sorted.

    If ``n`` exceeds ``total``, return all indices.
    """
    found: list[int] = sorted(np.random.default_rng(seed).permutation(total)[:n].tolist())
    return found


def editor_metrics(
    before: Sequence[EditRow],
    after: Sequence[EditRow],
    scored_by: Literal["truth", "verifier"],
    *,
    success_at: float = 9.0,
    bootstrap: Bootstrap = DEFAULT,
) -> EditorMetrics:
    """Compare two editors on the same cases: mean scores, paired differences and GSB (good, same, bad).

    A case is used only if the edits of both editors have a score. The bootstrap resamples the cases of a source image
    together.

    Args:
        before: Edits by the first editor.
        after: Edits of the same cases by the second editor.
        scored_by: Scores to compare: "truth" for ground-truth scores or "verifier" for the verifier's scores. Only
            ground-truth scores have the parts "follow", "keep" and "quality".
        success_at: Smallest ground-truth score that counts as a success.
        bootstrap: Settings of the bootstrap.

    Returns:
        The metrics of both editors and their differences. They are None if no case has scores of both edits.

    Raises:
        ValueError: ``before`` and ``after`` do not contain the same cases in the same order.
    """
    if [row.case.case_id for row in before] != [row.case.case_id for row in after]:
        raise ValueError(
            "before and after must contain the same cases in the same order; edit the same cases with both editors"
        )
    scores = [
        (_parts(b, scored_by, success_at), _parts(a, scored_by, success_at)) for b, a in zip(before, after, strict=True)
    ]
    complete = [(b, a) for b, a in scores if b is not None and a is not None]
    outcomes = (row.outcome for row in (*before, *after) if row.outcome is not None)
    failed = failures(outcomes) if scored_by == "verifier" else {}
    if not complete:
        return EditorMetrics(
            scored_by=scored_by,
            before=ScoreParts(),
            after=ScoreParts(),
            gain=ScoreParts(),
            num_cases=len(scores),
            failed=len(scores),
            failures=failed,
        )

    pairs = zip(before, scores, strict=True)
    groups = case_groups(row.case for row, (b, a) in pairs if b is not None and a is not None)

    def parts(measure: Callable[[list[float], list[float]], Estimate]) -> ScoreParts:
        return ScoreParts(
            **{name: measure([b[name] for b, _ in complete], [a[name] for _, a in complete]) for name in complete[0][0]}
        )

    return EditorMetrics(
        scored_by=scored_by,
        before=parts(lambda b, _a: mean_estimate(b, bootstrap, groups)),
        after=parts(lambda _b, a: mean_estimate(a, bootstrap, groups)),
        gain=parts(lambda b, a: paired_difference(a, b, bootstrap, groups)),
        gsb=gsb([a["score"] for _, a in complete], [b["score"] for b, _ in complete], bootstrap, groups),
        num_cases=len(scores),
        failed=len(scores) - len(complete),
        failures=failed,
    )


def gallery(before: Sequence[EditRow], after: Sequence[EditRow], n: int, seed: int) -> tuple[GalleryCase, ...]:
    """Draw ``n`` example cases for the report at random with ``seed``, and return them in their original order."""
    return tuple(
        GalleryCase(
            case_id=before[i].case.case_id,
            instruction=before[i].case.instruction,
            source=before[i].case.source.data,
            before=edit_view(before[i]),
            after=edit_view(after[i]),
        )
        for i in draw_indices(len(before), n, seed)
    )


def edit_view(row: EditRow) -> EditView:
    """Convert an edit to the format of the report.

    The verifier's answers and reasoning come from its first parsed trace. The ground-truth answers are included if they
    are known.
    """
    outcome = row.outcome
    verdict = outcome.verdicts[0] if isinstance(outcome, Scored) and outcome.verdicts else None
    answers = verdict.scores if verdict else (None,) * len(row.case.principles)
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
                verdict=answers[i],
                truth=None if known is None else known[i],
            )
            for i, principle in enumerate(row.case.principles)
        ),
    )


def _score_item(row: EditRow) -> ScoreItem:
    """Return the verifier's input for an edit.

    As in training, the source image is resized to the size of the edited image.
    """
    case = row.case
    return ScoreItem(
        source=EncodedImage(data=resized_to(case.source.data, row.image, Resampling.LANCZOS)),
        edited=EncodedImage(data=row.image),
        instruction=case.instruction,
        principles=case.principles,
    )


def _parts(row: EditRow, scored_by: str, success_at: float) -> dict[str, float] | None:
    """Return the score of an edit, the parts of this score and the success (0 or 1), by name.

    The verifier's scores have no parts and no success. Return None if the edit has no score.
    """
    if scored_by == "truth":
        if row.truth is None:
            return None
        parts = {name: float(getattr(row.truth, name)) for name in _PARTS}
        return {**parts, "success": float(row.truth.score >= success_at)}
    return {"score": row.outcome.score} if isinstance(row.outcome, Scored) else None
