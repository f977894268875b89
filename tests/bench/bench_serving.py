"""Measure the throughput of the reward server under load, of the engine in one batch, and of one request at a time.

Run ``python tests/bench/bench_serving.py [--model FOLDER] [--items 128]``. Without ``--model``, a tiny verifier with
random weights is built; each trace has at most ``--tokens`` tokens. Each round measures all three, so that their ratios are
meaningful on a machine with other load.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from editr1.config.serve import ClientConfig
from editr1.data.images import encode_png
from editr1.data.types import Category, EncodedImage, FailureCause, Principle, ScoreFailure, ScoreItem
from editr1.serving.client import RewardClient
from editr1.serving.engines.base import Sampling
from editr1.serving.engines.transformers_engine import TransformersEngine
from editr1.serving.scoring import score_items
from editr1.shapes.tiny_verifier import build_tiny_verifier


def draw_items(n: int, seed: int = 0) -> list[ScoreItem]:
    """Return ``n`` edits of 32x32 images in groups of 16 with a common source, as editor RL sends them."""
    rng = random.Random(seed)

    def random_image() -> EncodedImage:
        return EncodedImage(data=encode_png(Image.frombytes("RGB", (32, 32), rng.randbytes(3072))))

    principles = tuple(Principle(question=f"cell {k} kept?", category=Category.KEEP) for k in range(6))
    sources = [random_image() for _ in range((n + 15) // 16)]
    return [
        ScoreItem(source=sources[k // 16], edited=random_image(), instruction="make it red", principles=principles)
        for k in range(n)
    ]


def start_server(model: Path, tokens: int, batch: int, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a reward server in a subprocess, and return the process and the URL of the server."""
    ready = folder / "ready"
    sets = {"port": 0, "device": "cpu", "max_new_tokens": tokens, "max_batch_size": batch, "golden_must_parse": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "editr1.serving.run", str(model), "--ready-file", str(ready)]
        + [f"--set={key}={value}" for key, value in sets.items()]
    )
    while not ready.exists():
        if process.poll() is not None:
            raise SystemExit(f"the server exited with code {process.returncode} during startup; its log is above")
        time.sleep(0.05)
    return process, ready.read_text()


def main() -> None:
    """Measure the three rates, and print their medians and two ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="verifier folder")
    parser.add_argument("--items", type=int, default=128, help="items per round (default: %(default)s)")
    parser.add_argument("--single", type=int, default=16, help="items sent one at a time per round")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=75, help="maximum tokens per trace (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="maximum batch size of the engine (default: %(default)s)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = args.model or build_tiny_verifier(folder / "verifier", words=("red", "kept?", "cell "))
        items = draw_items(args.items)
        engine = TransformersEngine.load(model, device="cpu", max_batch_size=args.batch)
        sampling = Sampling(max_tokens=args.tokens)
        process, url = start_server(model, args.tokens, args.batch, folder)
        under_load = RewardClient([url], config=ClientConfig(max_request_items=16))
        one_by_one = RewardClient([url], config=ClientConfig(max_request_items=1, concurrency=1))
        rates: dict[str, list[float]] = {"offline": [], "server": [], "single": []}
        try:
            engine_answer = score_items(engine, items, sampling)
            assert [o.ok for o in under_load.score(items)] == [o.ok for o in engine_answer]
            for _ in range(args.rounds):
                start = time.perf_counter()
                score_items(engine, items, sampling)
                rates["offline"].append(args.items / (time.perf_counter() - start))
                start = time.perf_counter()
                outcomes = under_load.score(items)
                rates["server"].append(args.items / (time.perf_counter() - start))
                start = time.perf_counter()
                outcomes += one_by_one.score(items[: args.single])
                rates["single"].append(args.single / (time.perf_counter() - start))
                lost = [o for o in outcomes if isinstance(o, ScoreFailure) and o.cause is not FailureCause.UNPARSED]
                assert not lost, lost[0]
        finally:
            under_load.close()
            one_by_one.close()
            process.terminate()
            process.wait(60)

    medians = {name: statistics.median(values) for name, values in rates.items()}
    to_offline = statistics.median(s / o for s, o in zip(rates["server"], rates["offline"], strict=True))
    to_single = statistics.median(s / o for s, o in zip(rates["server"], rates["single"], strict=True))
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(
        f"{args.rounds} rounds of {args.items} items ({args.single} one by one), at most {args.tokens} tokens per trace"
    )
    print("median items/s: " + ", ".join(f"{name} {rate:.1f}" for name, rate in medians.items()))
    print(f"server under load / engine in one batch: {to_offline:.2f}")
    print(f"server under load / one request at a time: {to_single:.2f}")


if __name__ == "__main__":
    main()
