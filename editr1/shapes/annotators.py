"""The people of the shapes world, who compare two edits by the truth and sometimes err."""

from __future__ import annotations

from editr1.config.shapes import AnnotatorSettings
from editr1.data.types import Candidate, EditCase, PreferencePair
from editr1.seeding import derive_rng
from editr1.shapes.truth import true_score


def prefer(
    case: EditCase, a: Candidate, b: Candidate, seed: int, settings: AnnotatorSettings | None = None
) -> PreferencePair:
    """Rank two candidates of a case; deterministic in the ids and ``seed``.

    The better one by true score wins, but with probability ``settings.flips`` the other; a gap under
    ``settings.same_gap`` gives the label "same", in the order given.
    """
    settings = settings or AnnotatorSettings()
    gap = (
        true_score(case.source, case.instruction, a.image).score
        - true_score(case.source, case.instruction, b.image).score
    )
    pair_id = f"{case.case_id}.{seed}.{derive_rng(a.candidate_id, b.candidate_id).integers(1 << 40):010x}"
    if abs(gap) < settings.same_gap:
        return PreferencePair(pair_id=pair_id, case=case, winner=a, loser=b, label="same")
    flipped = derive_rng("prefer", a.candidate_id, b.candidate_id, seed).random() < settings.flips
    winner, loser = (a, b) if (gap > 0) != flipped else (b, a)
    return PreferencePair(pair_id=pair_id, case=case, winner=winner, loser=loser, label="winner")
