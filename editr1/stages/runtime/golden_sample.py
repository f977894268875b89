"""Write a verifier's golden sample: a test edit that a reward server scores before it becomes ready."""

from __future__ import annotations

from pathlib import Path

from editr1.data.types import ScoreItem
from editr1.serving.golden import GOLDEN_FILE, save_golden


def save_golden_sample(folder: Path, item: ScoreItem) -> None:
    """Write an edit to the folder of a verifier as its golden sample."""
    save_golden(folder / GOLDEN_FILE, [item])
