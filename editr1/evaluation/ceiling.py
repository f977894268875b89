"""Compute reference values for the metrics of a report.

These are the accuracy that label errors allow, and the score of an editor that does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from editr1.data.images import decode_image
from editr1.data.types import EditCase, PreferencePair
from editr1.evaluation.metrics import DEFAULT, Bootstrap, Estimate, mean_estimate, pair_credit
from editr1.evaluation.resampling import case_groups
from editr1.evaluation.scoring import GroundTruth


def truth_agreement(
    pairs: Sequence[PreferencePair], truth: GroundTruth, bootstrap: Bootstrap = DEFAULT
) -> Estimate | None:
    """Return the accuracy of the ground truth on ``pairs``, with half credit for ties, or None if no pair has a winner.

    Labels contain errors, so even a perfect verifier disagrees with some labels.
    """
    decided = [pair for pair in pairs if pair.label != "same"]
    if not decided:
        return None
    won, lost = (
        [truth(pair.case, decode_image(edit.image.data)).score for pair, edit in side]
        for side in (((pair, pair.winner) for pair in decided), ((pair, pair.loser) for pair in decided))
    )
    groups = case_groups(pair.case for pair in decided)
    return mean_estimate(pair_credit(won, lost, "half_credit"), bootstrap, groups)


def unchanged_score(cases: Sequence[EditCase], truth: GroundTruth, bootstrap: Bootstrap = DEFAULT) -> Estimate | None:
    """Return the mean ground-truth score of an editor that returns every source image unchanged, or None if there are no cases."""
    if not cases:
        return None
    scores = [truth(case, decode_image(case.source.data)).score for case in cases]
    return mean_estimate(scores, bootstrap, case_groups(cases))
