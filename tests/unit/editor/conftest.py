"""Tiny editors, edit cases and a scorer for the tests of the editor."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.config.grpo import GrpoConfig
from editr1.data.tables import write_table
from editr1.data.types import Category, EditCase, EncodedImage, Principle, Scored, ScoreItem, ScoreOutcome
from editr1.shapes.tiny_editor import build_tiny_flux_kontext, build_tiny_qwen_image_edit


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_flux_kontext(tmp_path_factory.mktemp("flux") / "editor", 0)


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_qwen_image_edit(tmp_path_factory.mktemp("qwen") / "editor", 0)


def random_image(seed: int, width: int = 32, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def edit_case(i: int, instruction: str | None = None, width: int = 32, height: int = 32) -> EditCase:
    buffer = io.BytesIO()
    random_image(i, width, height).save(buffer, "PNG")
    return EditCase(
        case_id=f"case-{i}",
        source=EncodedImage(data=buffer.getvalue()),
        instruction=instruction or f"make number {i} red",
        principles=(Principle(question="is it red?", category=Category.FOLLOW),),
    )


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cases") / "cases.parquet"
    write_table(path, [edit_case(i) for i in range(6)], EditCase)
    return path


def redness(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
    """Score each edit by its fraction of red, so that a score depends only on the edited image."""
    outcomes: list[ScoreOutcome] = []
    for item in items:
        pixels = np.asarray(Image.open(io.BytesIO(item.edited.data)), dtype=np.float64)
        score = 10.0 * pixels[..., 0].mean() / (pixels.sum(-1).mean() + 1.0)
        outcomes.append(Scored(score=float(score), verdicts=(), model_digest="sha256:verifier"))
    return outcomes


@pytest.fixture(scope="session")
def scorer() -> Callable[[Sequence[ScoreItem]], list[ScoreOutcome]]:
    return redness


@pytest.fixture(scope="session")
def small() -> GrpoConfig:
    return GrpoConfig(
        iterations=4,
        cases_per_iteration=2,
        group_size=4,
        num_inference_steps=4,
        sde_window_size=2,
        resolution=32,
        micro_batch_size=4,
        guidance_scale=1.0,
        checkpoint_every=2,
    )


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Image.Image]:
    return random_image


@pytest.fixture(scope="session")
def make_case() -> Callable[..., EditCase]:
    return edit_case
