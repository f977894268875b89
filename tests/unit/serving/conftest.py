"""A tiny verifier and edits to score."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from editr1.data.images import encode_png
from editr1.data.types import Category, Picture, Principle, ScoreItem
from editr1.shapes.tiny_verifier import build_tiny_verifier

MakeItems = Callable[..., list[ScoreItem]]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verifier of the shapes world's kind with random weights: it generates, but what it writes does not parse."""
    words = ("kept", "square", " red", "yes", "no", '[{"question": "')
    return build_tiny_verifier(tmp_path_factory.mktemp("tiny") / "verifier", words=words)


@pytest.fixture
def make_items() -> MakeItems:
    """``make_items(n, seed=0, source=None)``: ``n`` edits with pictures of their own."""

    def make(n: int, seed: int = 0, source: Picture | None = None) -> list[ScoreItem]:
        rng = random.Random(seed)

        def picture() -> Picture:
            return Picture(data=encode_png(Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3))))

        principles = (
            Principle(question="is it red?", category=Category.FOLLOW),
            Principle(question="is the rest kept?", category=Category.KEEP),
        )
        return [
            ScoreItem(source=source or picture(), edited=picture(), instruction=f"make it {i}", principles=principles)
            for i in range(n)
        ]

    return make
