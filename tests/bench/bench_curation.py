"""Measure curation of the shapes dataset over HTTP: throughput, and CPU time of VlmClient and of the openai client.

python tests/bench/bench_curation.py --cases 300
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import openai

from editr1.config.curate import CurateConfig, PrincipleCounts
from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.curation import prompts
from editr1.curation.pipeline import curate
from editr1.data.tables import write_table
from editr1.data.types import EditCase, Quadruple
from editr1.llm.event_loop import new_runner
from editr1.llm.messages import build_messages
from editr1.llm.vlm import VlmClient
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases
from editr1.shapes.labeller_server import labeller_server

SHAPES_COUNTS = PrincipleCounts(total=(6, 6), follow=(1, 2), keep=(3, 4), quality=(1, 1))


def measure_curation(cases: int) -> None:
    """Curate a generated dataset and print the throughput and the CPU time per request."""
    generated = generate_cases(cases, 0, "bench")
    with tempfile.TemporaryDirectory() as folder, labeller_server() as url:
        root = Path(folder)
        write_table(root / "cases.parquet", generated, EditCase)
        rows = (Quadruple(case=case, candidate=item) for case in generated for item in make_candidates(case, 0, 4))
        write_table(root / "candidates.parquet", rows, Quadruple)
        config = CurateConfig(endpoints={"default": EndpointConfig(base_url=url)}, principles=SHAPES_COUNTS)
        start, cpu = time.perf_counter(), time.process_time()
        counts = curate(config, cases=root / "cases.parquet", candidates=root / "candidates.parquet", out=root / "out")
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    served = resource.getrusage(resource.RUSAGE_CHILDREN)
    requests = counts["requests"]
    print(
        f"{counts['quadruples']:.0f} quadruples, {requests:.0f} requests, {wall:.1f} s, {requests / wall:.0f} requests/s"
    )
    print(
        f"client {cpu / requests * 1e3:.2f} ms of CPU per request, server {served.ru_utime + served.ru_stime:.1f} s of CPU in total"
    )


def compare_clients(count: int) -> None:
    """Print the CPU time per request of the plain openai client and of VlmClient."""
    (case,) = generate_cases(1, 0, "bench", with_principles=True)
    image = make_candidates(case, 0, 1)[0].image
    chat = build_messages(*prompts.think(case, image, case.principles), 1536)
    use = VlmConfig(model="careful", temperature=1.0)

    async def plain(url: str) -> float:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            return await _timed(
                lambda seed: client.chat.completions.create(
                    model="careful", messages=chat, n=4, seed=seed, temperature=1.0, max_tokens=4096
                ),
                count,
            )

    async def ours(url: str) -> float:
        async with VlmClient({"default": EndpointConfig(base_url=url)}) as client:
            return await _timed(lambda seed: client.complete(use, chat, n=4, seed=seed), count)

    with labeller_server() as url:
        library, vlm_client = asyncio.run(plain(url)), run_async(ours(url))
    print(
        f"CPU per request: plain openai {library:.2f} ms, VlmClient {vlm_client:.2f} ms (ratio {library / vlm_client:.1f})"
    )


def run_async(work):
    with new_runner() as runner:
        return runner.run(work)


async def _timed(ask, count: int) -> float:
    slots = asyncio.Semaphore(16)

    async def one(seed: int) -> None:
        async with slots:
            await ask(seed)

    await one(0)
    start = time.process_time()
    await asyncio.gather(*(one(seed) for seed in range(1, count + 1)))
    return (time.process_time() - start) / count * 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="number of cases to curate (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=500, help="requests per client (default: %(default)s)")
    arguments = parser.parse_args()
    compare_clients(arguments.requests)
    measure_curation(arguments.cases)
