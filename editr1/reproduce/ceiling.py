"""What no verifier can pass: how often people agree with the truth, and with other people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from editr1.data.types import PreferencePair
from editr1.shapes.annotators import prefer
from editr1.shapes.truth import true_score

Floats = npt.NDArray[np.float64]


class Ceiling(NamedTuple):
    """Over the decided pairs, each (n,): the truth's credit against the people (a tie is half), and other people's."""

    truth: Floats
    people: Floats


def ceiling(pairs: Sequence[PreferencePair], seed: int) -> Ceiling:
    """Judge the pairs that people decided by the truth, and by other people whose errors are drawn by ``seed``."""
    truth, people = [], []
    for pair in pairs:
        if pair.label != "winner":
            continue
        won, lost = (
            true_score(pair.case.source, pair.case.instruction, side.image).score for side in (pair.winner, pair.loser)
        )
        truth.append((won > lost) + 0.5 * (won == lost))
        again = prefer(pair.case, pair.winner, pair.loser, seed)
        people.append(float(again.winner.candidate_id == pair.winner.candidate_id))
    return Ceiling(np.array(truth, np.float64), np.array(people, np.float64))
