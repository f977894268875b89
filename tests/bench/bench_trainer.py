"""Compare the tokens per second of ``train_sft`` with a minimal loop over the same model, collator and optimizer.

    python tests/bench/bench_trainer.py [--steps 20]

The script prints one JSON object with the tokens per second of both and their ratio. A ratio of 1 means that the trainer
adds no overhead.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from editr1.config.sft import SftConfig
from editr1.data.images import encode_png
from editr1.data.tables import write_table
from editr1.data.types import Candidate, Category, EditCase, EncodedImage, Principle, Quadruple, SftRow
from editr1.parallel.context import DistributedContext
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.telemetry import TrainHooks
from editr1.verifier.model import load_verifier
from editr1.verifier.rows import RowCache, sft_rows
from editr1.verifier.sft import train_sft
from editr1.verifier.trace import format_trace

QUESTIONS = [
    Principle(question="top-left is red square?", category=Category.FOLLOW),
    *(
        Principle(question=f"{place} kept?", category=Category.KEEP)
        for place in ("top-right", "bottom-left", "bottom-right", "background")
    ),
    Principle(question="picture clean?", category=Category.QUALITY),
]


def rows(count: int) -> list[SftRow]:
    """Return rows with two noise images and a trace of typical length for the shapes dataset."""
    rng = random.Random(0)

    def image() -> EncodedImage:
        return EncodedImage(data=encode_png(Image.frombytes("RGB", (32, 32), rng.randbytes(3072))))

    made = []
    for number in range(count):
        case = EditCase(
            case_id=f"case-{number}",
            source=image(),
            instruction="remove the top-left red square",
            principles=tuple(QUESTIONS),
        )
        candidate = Candidate(candidate_id=f"c-{number}", editor="any", image=image())
        lines = "\n".join("top-left had red square -> red square, yes;" for _ in QUESTIONS)
        trace = format_trace(lines, QUESTIONS, [rng.randrange(2) for _ in QUESTIONS], rng.randrange(21) / 2)
        made.append(SftRow(quadruple=Quadruple(case=case, candidate=candidate), trace=trace))
    return made


def minimal_loop(model_folder: Path, table: Path, folder: Path, steps: int, batch_size: int) -> float:
    """Return the tokens per second of forward pass, backward pass and AdamW with TRL's collator, after a warm-up step."""
    model, processor, template = load_verifier(model_folder)
    model.train()
    dataset = sft_rows(table, processor, template, 4096, RowCache(folder, DistributedContext()))
    collator = DataCollatorForVisionLanguageModeling(processor=processor, completion_only_loss=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    order = random.Random(0).sample(range(len(dataset)), (steps + 1) * batch_size)
    tokens, start = 0, 0.0
    for step in range(steps + 1):
        if step == 1:
            tokens, start = 0, time.perf_counter()
        batch = collator(dataset.__getitems__(order[step * batch_size : (step + 1) * batch_size]))
        model(**batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch["attention_mask"].sum())
    return tokens / (time.perf_counter() - start)


class _SpeedRecorder:
    """Progress that records the reported tokens per second of each step."""

    def __init__(self) -> None:
        self.speeds: list[float] = []

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Ignore phases."""

    def step(self, n: int = 1, **metrics: float) -> None:
        """Record the speed of a step."""
        self.speeds.append(metrics["tokens_per_second"])


def trainer(model_folder: Path, table: Path, folder: Path, steps: int, batch_size: int) -> float:
    """Return the harmonic mean of the tokens per second that ``train_sft`` reports, without the first step."""
    recorder = _SpeedRecorder()
    config = SftConfig(max_steps=steps + 1, batch_size=batch_size, device="cpu")
    hooks = TrainHooks(progress=recorder)  # type: ignore[arg-type]
    train_sft(config, model=model_folder, rows=table, output_dir=folder, hooks=hooks)
    return steps / sum(1 / speed for speed in recorder.speeds[1:])


def main() -> None:
    """Run the two alternately, and print the speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="measured steps per round")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the best of each is compared")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_tiny_verifier(folder / "model")
        write_table(folder / "rows.parquet", rows((arguments.steps + 1) * 32), SftRow)
        speeds: dict[str, list[float]] = {"minimal_loop": [], "trainer": []}
        for number in range(arguments.rounds):
            for kind, measure in (("minimal_loop", minimal_loop), ("trainer", trainer)):
                speed = measure(model, folder / "rows.parquet", folder / f"{kind}-{number}", arguments.steps, 32)
                speeds[kind].append(speed)
        best = {kind: max(values) for kind, values in speeds.items()}
        print(
            json.dumps({"tokens_per_second": best, "ratio": best["trainer"] / best["minimal_loop"], "rounds": speeds})
        )


if __name__ == "__main__":
    main()
