"""Fixtures for a case with four principles and for a quadruple with this case."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from editr1.data.types import Candidate, Category, EditCase, EncodedImage, Principle, Quadruple


def png(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> EncodedImage:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "PNG")
    return EncodedImage(data=buffer.getvalue())


@pytest.fixture
def principles() -> tuple[Principle, ...]:
    kinds = [Category.FOLLOW] * 2 + [Category.KEEP] + [Category.QUALITY]
    return tuple(Principle(question=f"Is part {n} right?", category=kind) for n, kind in enumerate(kinds))


@pytest.fixture
def case(principles: tuple[Principle, ...]) -> EditCase:
    return EditCase(case_id="c1", source=png(1), instruction="Turn the wall blue", principles=principles)


@pytest.fixture
def quadruple(case: EditCase) -> Quadruple:
    return Quadruple(case=case, candidate=Candidate(candidate_id="c1:a", editor="a", image=png(2)))
