"""Generate perfect and faulty edits of a case, which imitate editors of different quality."""

from __future__ import annotations

import numpy as np

from editr1.config.shapes import CandidateSettings
from editr1.data.types import Candidate, EditCase
from editr1.seeding import derive_rng
from editr1.shapes.edits import Edit, parse_instruction
from editr1.shapes.faults import KINDS, PIXEL_FAULTS, apply_with_faults
from editr1.shapes.rendering import Pixels, to_encoded_image
from editr1.shapes.scene import Scene
from editr1.shapes.truth import read_image

MULTIPLE_FAULTS = "several"
"""Value of ``Candidate.editor`` for a candidate with more than one kind of fault."""


def make_candidates(case: EditCase, seed: int, n: int, settings: CandidateSettings | None = None) -> list[Candidate]:
    """Generate ``n`` candidates of a case. ``settings`` give the probability of each kind of candidate.

    ``Candidate.editor`` is the kind of the candidate (see ``faults.KINDS``), or ``MULTIPLE_FAULTS``. The result depends
    only on the arguments.

    Raises:
        ValueError: the instruction does not belong to the shapes dataset.
    """
    settings = settings or CandidateSettings()
    edit, source = parse_instruction(case.instruction), read_image(case.source).scene
    rng = derive_rng("candidates", case.case_id, seed)
    made = []
    for index in range(n):
        editor, _, image = generate_candidate(source, edit, rng, settings)
        made.append(
            Candidate(candidate_id=f"{case.case_id}.s{seed}.{index}", editor=editor, image=to_encoded_image(image))
        )
    return made


def make_candidate(case: EditCase, kind: str, seed: int = 0) -> Candidate | None:
    """Generate one candidate of the given kind (see ``faults.KINDS``), or None if the case does not allow this kind."""
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not a kind of candidate; use one of {', '.join(KINDS)}")
    made = apply_with_faults(
        (kind,),
        read_image(case.source).scene,
        parse_instruction(case.instruction),
        derive_rng(kind, case.case_id, seed),
    )
    if made is None:
        return None
    return Candidate(candidate_id=f"{case.case_id}.{kind}.{seed}", editor=kind, image=to_encoded_image(made[1]))


def generate_candidate(
    source: Scene, edit: Edit, rng: np.random.Generator, settings: CandidateSettings
) -> tuple[str, Scene, Pixels]:
    """Generate one candidate, and return its kind (or ``MULTIPLE_FAULTS``), its scene and its image.

    Pixel faults change the image, but not the scene.
    """
    unknown = set(settings.weights) - set(KINDS)
    if unknown:
        raise ValueError(
            f"candidates.weights: {sorted(unknown)}: unknown kinds of candidates; use only {', '.join(KINDS)}"
        )
    names = list(settings.weights)
    weights = np.asarray([settings.weights[name] for name in names])
    while True:
        kinds = (
            _multiple_faults(rng)
            if rng.random() < settings.multiple_faults_rate
            else (str(rng.choice(names, p=weights / weights.sum())),)
        )
        made = apply_with_faults(kinds, source, edit, rng)
        if made is not None:
            return (kinds[0] if len(kinds) == 1 else MULTIPLE_FAULTS), *made


def _multiple_faults(rng: np.random.Generator) -> tuple[str, ...]:
    """Select two or three kinds of faults at random.

    Similar kinds, such as ``leak`` and ``leak_two``, form a group. At most one kind per group is selected.
    """
    groups = (("no_edit", "wrong"), ("leak", "leak_two"), ("lost",), ("extra",), ("ground_leak",), tuple(PIXEL_FAULTS))
    chosen = rng.choice(len(groups), size=int(rng.integers(2, 4)), replace=False)
    return tuple(str(rng.choice(groups[index])) for index in sorted(chosen))
