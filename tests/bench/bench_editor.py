"""Measure the throughput of editor sampling in images per second, with and without overlapped scoring.

Run: ``python tests/bench/bench_editor.py [iterations]``. The scorer is an HTTP server on the loopback interface that
responds after a fixed latency, in place of a reward server on another machine. The editor is the tiny FLUX.1-Kontext with
random weights. The two modes alternate in one process. The printed ratio is the throughput with overlap divided by the
throughput without overlap.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from editr1.config.grpo import GrpoConfig
from editr1.data.tables import write_table
from editr1.data.types import EditCase, Scored, ScoreItem, ScoreOutcome
from editr1.editor.cases import CaseOrder
from editr1.editor.policies import load_policy
from editr1.editor.reward import RewardCollector
from editr1.editor.sampler import GroupSampler
from editr1.shapes.cases import generate_cases
from editr1.shapes.tiny_editor import build_tiny_flux_kontext


class FixedLatency(BaseHTTPRequestHandler):
    """HTTP handler that responds to each POST after ``latency`` seconds with one score per edit."""

    latency = 0.4

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.latency)
        answer = json.dumps([float(i % 10) for i in range(len(json.loads(body)))]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        return None


def http_scorer(port: int) -> object:
    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        body = json.dumps([item.edited.data.hex() for item in items]).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/", data=body)) as response:
            scores = json.loads(response.read())
        return [Scored(score=score, verdicts=(), model_digest="fixed") for score in scores]

    return score


def main(iterations: int = 4) -> dict[str, float]:
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), FixedLatency)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seconds = {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        policy = load_policy(str(build_tiny_flux_kontext(root / "editor", 0)))
        write_table(root / "cases.parquet", generate_cases(64, 0, "bench", with_principles=True), EditCase)
        config = GrpoConfig(iterations=iterations + 1, resolution=32, micro_batch_size=16)
        order = CaseOrder(root / "cases.parquet", seed=0, per_iteration=8, iterations=iterations + 1)
        sampler = GroupSampler(policy, config)
        collectors = {
            overlap: RewardCollector(http_scorer(server.server_port), batch_size=16, concurrency=2, overlap=overlap)  # type: ignore[arg-type]
            for overlap in seconds
        }
        for i in range(iterations + 1):
            for overlap, collector in collectors.items():
                start = time.perf_counter()
                sampler.sample(i, order.iteration(i), collector)
                assert bool(collector.collect().valid_mask.all())
                if i:  # the first iteration is a warm-up
                    seconds[overlap] += time.perf_counter() - start
    server.shutdown()
    images = iterations * config.cases_per_iteration * config.group_size
    result = {
        "images": float(images),
        "latency_s": FixedLatency.latency,
        "images_per_s_overlap": images / seconds[True],
        "images_per_s_without": images / seconds[False],
        "ratio": seconds[False] / seconds[True],
    }
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
