"""The golden sample that travels in a verifier's folder: an edit of its own training data, scored before a server is ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from editr1.data.types import ScoreItem
from editr1.serving.golden import default_golden, load_golden, save_golden

GOLDEN_FILE = "editr1_golden.json"


def put_golden(folder: Path, item: ScoreItem) -> None:
    """Write ``item`` into the verifier folder."""
    save_golden(folder / GOLDEN_FILE, [item])


def golden_of(model: str) -> Sequence[ScoreItem]:
    """The folder's golden sample, or a plain one for folders (and hub names) that bring none."""
    file = Path(model) / GOLDEN_FILE
    return load_golden(file) if file.is_file() else default_golden()
