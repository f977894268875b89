"""Record of how the settings of the experiments were tuned: the development seeds, and how many settings were tried."""

from __future__ import annotations

from typing import NamedTuple

DEVELOPMENT_SEEDS = (0, 101, 201, 301, 401, 402, 601)
"""Seeds on which settings were chosen. Metrics on these seeds are not reported as results."""


class TunedChoice(NamedTuple):
    """A tuned choice, and the number of settings that were tried for it on the development seeds; see docs/reproduction.md."""

    what: str
    settings: int


TUNED = (
    TunedChoice("labelling models and GCPO: number of traces, weights, learning rate, rollouts", 8),
    TunedChoice("SFT on unverified traces (T): training steps", 4),
    TunedChoice("SFT on bare verdicts (V): training steps, learning rate, pretraining on answers without reasoning", 7),
    TunedChoice("SFT on holistic ratings: training steps, wording of the questions", 3),
    TunedChoice("GCPO: tie credit", 2),
    TunedChoice("longer SFT and SFT on best-of-n traces: learning rate, training steps", 7),
    TunedChoice("editor RL: iterations", 3),
)
