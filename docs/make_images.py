"""Make the images of the quickstart tutorial from a finished run: ``python docs/make_images.py runs/quickstart``.

The images show the first rows of each table, so that the examples are not selected by appearance.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

OUT = Path(__file__).parent / "images"
SIDE, GAP, TEXT = 112, 12, 34
Tile = tuple[str, bytes]
"""Caption and bytes of an image file."""


def main(run: Path) -> None:
    """Write the images of the tutorial."""
    OUT.mkdir(exist_ok=True)
    curated = next((run / "stages/curate").glob("out-*"))
    rows = _first(curated / "rows/rows.parquet", 40)
    case = rows[0]["quadruple"]["case"]
    tiles = [("source", case["source"]["data"])]
    for row in rows:
        if row["quadruple"]["case"]["case_id"] == case["case_id"]:
            candidate = row["quadruple"]["candidate"]
            tiles.append((candidate["editor"], candidate["image"]["data"]))
    _save("quickstart-candidates.png", [(case["instruction"], tiles)])
    pair = _first(curated / "pairs/pairs.parquet", 1)[0]
    tiles = [("source", pair["case"]["source"]["data"])]
    tiles += [(f"{side}: {pair[side]['editor']}", pair[side]["image"]["data"]) for side in ("winner", "loser")]
    _save("quickstart-pair.png", [(pair["case"]["instruction"], tiles)])
    evaluation = json.loads(next((run / "stages/evaluate").glob("out-*/evaluation/evaluation.json")).read_text())
    strips = []
    for shown in evaluation["gallery"][:4]:
        tiles = [("source", _bytes(shown["source"]))]
        for side in ("before", "after"):
            tiles.append((f"{side} RL", _bytes(shown[side]["image"])))
        strips.append((shown["instruction"], tiles))
    _save("quickstart-editor.png", strips)


def _first(table: Path, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = next(pq.ParquetFile(table).iter_batches(count)).to_pylist()
    return rows


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _save(name: str, strips: Sequence[tuple[str, Sequence[Tile]]]) -> None:
    """Draw one row of images per strip, with its title above and the captions below."""
    font = ImageFont.load_default(13)
    width = GAP + max(len(tiles) for _, tiles in strips) * (SIDE + GAP)
    height = SIDE + 2 * TEXT
    canvas = Image.new("RGB", (width, height * len(strips)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (title, tiles) in enumerate(strips):
        top = row * height
        draw.text((GAP, top + 10), title, fill="black", font=font)
        for column, (caption, data) in enumerate(tiles):
            left = GAP + column * (SIDE + GAP)
            image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            canvas.paste(image, (left, top + TEXT))
            draw.rectangle((left - 1, top + TEXT - 1, left + SIDE, top + TEXT + SIDE), outline="#bbbbbb")
            draw.text((left, top + TEXT + SIDE + 6), caption, fill="#444444", font=font)
    canvas.quantize(128).save(OUT / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
