"""Reward servers in separate processes, with a tiny verifier trained to generate one fixed trace."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.data.images import encode_png
from editr1.data.types import Category, EncodedImage, Principle, ScoreItem
from editr1.serving.golden import save_golden
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.verifier.chat import build_chat
from editr1.verifier.model import load_verifier, save_verifier
from editr1.verifier.trace import format_trace

PRINCIPLES = (
    Principle(question="is it red?", category=Category.FOLLOW),
    Principle(question="is the rest kept?", category=Category.KEEP),
)
TRACE = format_trace("red seen, yes; rest kept, no;", PRINCIPLES, [1, 0], 7.5)
MakeItems = Callable[..., list[ScoreItem]]


@pytest.fixture(scope="session")
def make_items() -> MakeItems:
    """``make_items(n, seed=0)`` returns ``n`` edits of distinct images."""

    def make(n: int, seed: int = 0) -> list[ScoreItem]:
        rng = random.Random(seed)

        def random_image() -> EncodedImage:
            return EncodedImage(data=encode_png(Image.frombytes("RGB", (32, 32), rng.randbytes(32 * 32 * 3))))

        return [
            ScoreItem(
                source=random_image(), edited=random_image(), instruction=f"make it {k % 10}", principles=PRINCIPLES
            )
            for k in range(n)
        ]

    return make


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory, make_items: MakeItems) -> Path:
    """A tiny verifier, trained for seconds, that generates ``TRACE`` (score 7.5) for every edit."""
    folder = build_tiny_verifier(
        tmp_path_factory.mktemp("serving") / "verifier",
        words=("is it red?", "is the rest kept?", "make it ", " seen", "red", "rest kept", "average_score"),
    )
    model, processor, template = load_verifier(folder)
    items = make_items(4, seed=123)
    samples = [Image.frombytes("RGB", (32, 32), random.Random(k).randbytes(3072)) for k in range(8)]
    texts, images = [], []
    for k, item in enumerate(items):
        chat = build_chat(template, samples[2 * k], samples[2 * k + 1], item.instruction, PRINCIPLES)
        prompt = processor.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
        texts.append(f"{prompt}{TRACE}<|im_end|>")
        images += chat.images
    batch = processor(text=texts, images=images, padding=True, return_tensors="pt")
    length = len(processor.tokenizer(f"{TRACE}<|im_end|>")["input_ids"])
    labels = batch["input_ids"].clone()
    labels[:, :-length] = -100
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        loss = model(**batch, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if loss.item() < 0.005:
            break
    assert loss.item() < 0.05
    return save_verifier(model.eval(), processor, template, folder)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verifier with random weights, which generates tokens up to the limit."""
    return build_tiny_verifier(tmp_path_factory.mktemp("untrained") / "verifier", words=("red",), seed=3)


@dataclass
class Process:
    """A reward server in a separate process."""

    url: str
    popen: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(30)


StartServer = Callable[..., Process]


@pytest.fixture(scope="session")
def start_server(
    verifier: Path, make_items: MakeItems, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """``start_server(model=None, env=None, **settings)`` returns a ready server, killed at the end of the session."""
    tmp_path = tmp_path_factory.mktemp("servers")
    processes: list[Process] = []
    golden = tmp_path / "golden.json"
    save_golden(golden, make_items(1, seed=5))

    def start(*, model: Path | None = None, env: dict[str, str] | None = None, **config: object) -> Process:
        number = len(processes)
        ready, log = tmp_path / f"ready-{number}", tmp_path / f"server-{number}.log"
        sets = [f"--set={key}={value}" for key, value in {"port": 0, "device": "cpu", **config}.items()]
        command = [sys.executable, "-m", "editr1.serving.run", str(model or verifier), "--golden", str(golden)]
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [*command, "--ready-file", str(ready), *sets],
                stdout=file,
                stderr=file,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
            )
        process = Process("", popen, log)
        processes.append(process)
        until = time.monotonic() + 300
        while not ready.exists():
            if popen.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server did not start: {log.read_text()}")
            time.sleep(0.05)
        process.url = ready.read_text()
        return process

    yield start
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()
