"""How the settings were tuned: the development seeds and the number of settings tried, which the page reports."""

from __future__ import annotations

from typing import NamedTuple

DEVELOPMENT_SEEDS = (0, 101, 201, 301, 401, 402, 601)
"""Seeds on which settings were chosen; metrics on these seeds are not results."""


class TunedChoice(NamedTuple):
    """A tuned choice, and the number of settings tried for it on the development seeds (see docs/reproduction.md)."""

    what: str
    settings: int


TUNED = (
    TunedChoice("labelling models and GCPO: traces, weights, learning rate, rollouts", 8),
    TunedChoice("SFT of T: steps", 4),
    TunedChoice("SFT of V: steps, learning rate, pretraining with answers without reasoning", 7),
    TunedChoice("SFT of holistic ratings: steps, questions", 3),
    TunedChoice("GCPO: tie credit", 2),
    TunedChoice("longer SFT, SFT on best-of-n traces: learning rate, steps", 7),
    TunedChoice("editor RL: iterations", 3),
)
