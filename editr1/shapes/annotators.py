"""Simulated human annotators. They usually prefer the edit with the higher ground-truth score."""

from __future__ import annotations

from editr1.config.shapes import AnnotatorSettings
from editr1.data.types import Candidate, EditCase, PreferencePair
from editr1.seeding import derive_rng
from editr1.shapes.truth import true_score


def label_pair(
    case: EditCase, a: Candidate, b: Candidate, seed: int, settings: AnnotatorSettings | None = None
) -> PreferencePair:
    """Return the preference of a simulated annotator between two candidates of a case.

    The candidate with the higher ground-truth score is the winner. With probability ``settings.flip_rate``, the annotator
    makes an error, and the other candidate is the winner. If the scores differ by less than ``settings.tie_threshold``,
    the label is "same", and ``a`` is stored as the winner. The result depends only on the arguments.
    """
    settings = settings or AnnotatorSettings()
    gap = (
        true_score(case.source, case.instruction, a.image).score
        - true_score(case.source, case.instruction, b.image).score
    )
    pair_id = f"{case.case_id}.{seed}.{derive_rng(a.candidate_id, b.candidate_id).integers(1 << 40):010x}"
    if abs(gap) < settings.tie_threshold:
        return PreferencePair(pair_id=pair_id, case=case, winner=a, loser=b, label="same")
    flipped = derive_rng("prefer", a.candidate_id, b.candidate_id, seed).random() < settings.flip_rate
    winner, loser = (a, b) if (gap > 0) != flipped else (b, a)
    return PreferencePair(pair_id=pair_id, case=case, winner=winner, loser=loser, label="winner")
