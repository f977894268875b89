"""How the settings were chosen: on which seeds, and how many of what were tried. Told on the page, so that luck can be judged."""

from __future__ import annotations

from typing import NamedTuple

DEVELOPMENT_SEEDS = (0, 101, 201, 301, 401, 402, 601)
"""Seeds that were looked at while settings were chosen: their figures are no result."""


class Tried(NamedTuple):
    """A choice, and how many settings of it were run on those seeds; docs/reproduction.md says which."""

    what: str
    settings: int


TRIED = (
    Tried("labelling models and GCPO: traces, weights, learning rate, rollouts", 8),
    Tried("SFT of T: steps", 4),
    Tried("SFT of V: steps, learning rate, pretraining with silent answers", 7),
    Tried("SFT of holistic marks: steps, questions", 3),
    Tried("what a tie earns", 2),
    Tried("SFT for longer, SFT on picked traces: learning rate, steps", 7),
    Tried("editor RL: iterations", 3),
)
