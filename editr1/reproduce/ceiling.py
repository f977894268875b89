"""Upper bounds for a verifier's accuracy: how often the ground truth and other annotators agree with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from editr1.data.types import PreferencePair
from editr1.evaluation.resampling import case_groups
from editr1.shapes.annotators import label_pair
from editr1.shapes.truth import true_score

Floats = npt.NDArray[np.float64]


UPPER_BOUNDS = ("truth", "people")
"""Names of the upper bounds in :class:`Ceiling`."""


class Ceiling(NamedTuple):
    """Upper bounds for the accuracy: agreement with the preference labels, for each of ``n`` pairs with a winner.

    Arrays have the shape ``[n]``. A value is 1 for agreement, 0 for disagreement, and 0.5 if both edits of the pair
    have the same score. ``truth`` is the agreement of the ground truth, and ``people`` is the agreement of a second
    set of annotators. ``groups`` contains the bootstrap group of each pair.
    """

    truth: Floats
    people: Floats
    groups: list[str]


def ceiling(pairs: Sequence[PreferencePair], seed: int) -> Ceiling:
    """Compare the preference labels with the ground truth and with a second set of simulated annotators.

    ``seed`` determines the errors of the second set. Pairs without a preference are skipped.
    """
    truth, people = [], []
    decided = [pair for pair in pairs if pair.label == "winner"]
    for pair in decided:
        won, lost = (
            true_score(pair.case.source, pair.case.instruction, side.image).score for side in (pair.winner, pair.loser)
        )
        truth.append((won > lost) + 0.5 * (won == lost))
        again = label_pair(pair.case, pair.winner, pair.loser, seed)
        people.append(float(again.winner.candidate_id == pair.winner.candidate_id))
    return Ceiling(np.array(truth, np.float64), np.array(people, np.float64), case_groups(p.case for p in decided))
