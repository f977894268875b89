"""Upper bounds of a verifier's accuracy: how often annotators agree with the ground truth and with other annotators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from editr1.data.types import PreferencePair
from editr1.shapes.annotators import label_pair
from editr1.shapes.truth import true_score

Floats = npt.NDArray[np.float64]


class Ceiling(NamedTuple):
    """Agreement with the annotators' labels per decided pair; each array has shape ``[n]``.

    ``truth`` is the credit of the ground truth (0.5 for a tie), ``people`` that of a second set of annotators.
    """

    truth: Floats
    people: Floats


def ceiling(pairs: Sequence[PreferencePair], seed: int) -> Ceiling:
    """Score the decided pairs by the ground truth, and by a second set of annotators whose errors are drawn from ``seed``."""
    truth, people = [], []
    for pair in pairs:
        if pair.label != "winner":
            continue
        won, lost = (
            true_score(pair.case.source, pair.case.instruction, side.image).score for side in (pair.winner, pair.loser)
        )
        truth.append((won > lost) + 0.5 * (won == lost))
        again = label_pair(pair.case, pair.winner, pair.loser, seed)
        people.append(float(again.winner.candidate_id == pair.winner.candidate_id))
    return Ceiling(np.array(truth, np.float64), np.array(people, np.float64))
