"""Read and write a verifier's golden sample: a test edit that a reward server scores before it becomes ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from editr1.data.types import ScoreItem
from editr1.serving.golden import default_golden, load_golden, save_golden

GOLDEN_FILE = "editr1_golden.json"


def save_golden_sample(folder: Path, item: ScoreItem) -> None:
    """Write an edit to the folder of a verifier as its golden sample."""
    save_golden(folder / GOLDEN_FILE, [item])


def load_golden_sample(model: str) -> Sequence[ScoreItem]:
    """Load the golden sample of a verifier.

    Return a default sample if the folder ``model`` has none, or if ``model`` is the name of a model on the hub.
    """
    file = Path(model) / GOLDEN_FILE
    return load_golden(file) if file.is_file() else default_golden()
