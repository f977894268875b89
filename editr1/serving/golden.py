"""Golden samples: edits that a server must score before it reports that it is ready."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from editr1.config.loader import validate
from editr1.data.given_json import parse_given_json
from editr1.data.images import encode_png
from editr1.data.types import Category, EncodedImage, Principle, ScoreFailure, ScoreItem
from editr1.serving.api import ScoreRequest, decode_items, encode_request

GOLDEN_FILE = "editr1_golden.json"
"""Name of the file with golden samples in the folder of a verifier."""


def default_golden() -> tuple[ScoreItem, ...]:
    """Return one golden sample: an edit from a grey to a white image, with one question per category.

    Any verifier can generate a trace for it, but only a trained verifier generates a trace that can be parsed.
    """
    grey, white = (encode_png(Image.new("RGB", (64, 64), colour)) for colour in ("grey", "white"))
    principles = (
        Principle(question="Is the picture white?", category=Category.FOLLOW),
        Principle(question="Is the size of the picture unchanged?", category=Category.KEEP),
        Principle(question="Is the picture free of artefacts?", category=Category.QUALITY),
    )
    item = ScoreItem(
        source=EncodedImage(data=grey),
        edited=EncodedImage(data=white),
        instruction="Turn the picture white.",
        principles=principles,
    )
    return (item,)


def load_golden_sample(model: str | Path) -> Sequence[ScoreItem]:
    """Load the golden sample of a verifier.

    Return a default sample if the folder ``model`` has none, or if ``model`` is the name of a model on the hub.

    Raises:
        ValueError: The file in the folder is not valid; see :func:`load_golden`.
    """
    file = Path(model) / GOLDEN_FILE
    return load_golden(file) if file.is_file() else default_golden()


def save_golden(path: Path, items: Sequence[ScoreItem]) -> None:
    """Write golden samples to a JSON file, in the format of ``items`` in a score request."""
    path.write_text(json.dumps(json.loads(encode_request(items))["items"], indent=1) + "\n", encoding="utf-8")


def load_golden(path: Path) -> tuple[ScoreItem, ...]:
    """Read golden samples from a file that :func:`save_golden` wrote, or that contains a single item.

    Raises:
        ValueError: The file is not valid; the message gives the file and the index of the item.
    """
    try:
        raw = parse_given_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a list of items in the format of a score request: {error}") from None
    raw = raw if isinstance(raw, list) else [raw]
    validate(ScoreRequest, {"items": raw}, where=str(path))
    items = decode_items(raw)
    for index, item in enumerate(items):
        if isinstance(item, ScoreFailure):
            raise ValueError(f"{path}: item {index}: {item.detail}")
    return tuple(item for item in items if isinstance(item, ScoreItem))
