"""A tiny verifier with random weights, and rows and pairs with random images."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.config.sft import SftConfig
from editr1.data.images import encode_png
from editr1.data.tables import write_table
from editr1.data.types import Candidate, Category, EditCase, EncodedImage, PreferencePair, Principle, Quadruple, SftRow
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.telemetry import TrainHooks
from editr1.verifier.sft import train_sft
from editr1.verifier.trace import format_trace

QUESTIONS = (
    Principle(question="top-left is red square?", category=Category.FOLLOW),
    Principle(question="background kept?", category=Category.KEEP),
    Principle(question="picture clean?", category=Category.QUALITY),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small verifier with random weights."""
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier") / "tiny", seed=3, size="small")


def image(rng: random.Random, size: tuple[int, int] = (32, 32)) -> EncodedImage:
    return EncodedImage(data=encode_png(Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))))


def case(rng: random.Random, number: int, size: tuple[int, int] = (32, 32)) -> EditCase:
    return EditCase(
        case_id=f"case-{number}",
        source=image(rng, size),
        instruction="remove the top-left red square",
        principles=QUESTIONS,
    )


def candidate(rng: random.Random, name: str) -> Candidate:
    return Candidate(candidate_id=name, editor="any", image=image(rng))


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write SFT rows with random verdicts. ``sizes`` sets the size of the source image by row number."""

    def write(count: int, sizes: dict[int, tuple[int, int]] | None = None, name: str = "rows.parquet") -> Path:
        rng = random.Random(1)
        rows = []
        for number in range(count):
            bits = [rng.randrange(2) for _ in QUESTIONS]
            item = case(rng, number, (sizes or {}).get(number, (32, 32)))
            trace = format_trace("picture looks clean, yes;", QUESTIONS, bits, rng.randrange(21) / 2)
            rows.append(SftRow(quadruple=Quadruple(case=item, candidate=candidate(rng, f"c{number}")), trace=trace))
        write_table(tmp_path / name, rows, SftRow)
        return tmp_path / name

    return write


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write preference pairs. Every ``same_every``-th pair is labelled "same"; if it is 0, no pair is."""

    def write(count: int, same_every: int = 0, name: str = "pairs.parquet") -> Path:
        rng = random.Random(2)
        pairs = [
            PreferencePair(
                pair_id=f"pair-{number}",
                case=case(rng, number),
                winner=candidate(rng, f"w{number}"),
                loser=candidate(rng, f"l{number}"),
                label="same" if same_every and number % same_every == 0 else "winner",
            )
            for number in range(count)
        ]
        write_table(tmp_path / name, pairs, PreferencePair)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def writer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verifier that writes well-formed traces with random scores, so that rewards differ."""
    folder = tmp_path_factory.mktemp("writer")
    rng = random.Random(5)
    rows = [
        SftRow(
            quadruple=Quadruple(case=case(rng, number), candidate=candidate(rng, f"c{number}")),
            trace=format_trace("", QUESTIONS, [1, 0, 1], rng.choice([2.0, 8.0])),
        )
        for number in range(64)
    ]
    write_table(folder / "rows.parquet", rows, SftRow)
    config = SftConfig(max_steps=60, batch_size=16, warmup_steps=5, learning_rate=1e-2, device="cpu")
    train_sft(config, model=tiny, rows=folder / "rows.parquet", output_dir=folder / "model", hooks=TrainHooks())
    return folder / "model"
