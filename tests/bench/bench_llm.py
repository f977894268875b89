"""Measure the client of chat servers: CPU time per request, and throughput relative to a plain aiohttp loop.

Run ``python tests/bench/bench_llm.py [--requests 512] [--pixels 32]``. A stub server in another process answers each
request after 0.5 s and processes at most 64 requests at the same time. Each round measures, one after the other: a plain
aiohttp loop that posts prepared bodies (the baseline), the client as curation uses it (with a cache and a parser), and the
openai engine of the reward server. Every request has an image of its own. CPU time is that of the measuring process.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web
from PIL import Image

from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.config.serve import OpenAIEngineConfig
from editr1.data.images import encode_png
from editr1.data.types import Category, EncodedImage, Principle, ScoreItem
from editr1.llm.event_loop import new_runner
from editr1.llm.messages import build_messages
from editr1.llm.request import ChatRequest
from editr1.llm.vlm import VlmClient
from editr1.serving.engines.base import Sampling
from editr1.serving.engines.openai_engine import OpenAIEngine
from editr1.serving.scoring import score_items
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.trace import format_trace, parse_trace

SLOTS = 64
LATENCY_S = 0.5
PRINCIPLES = tuple(Principle(question=f"Is cell {k} kept?", category=Category.KEEP) for k in range(6))
TRACE = format_trace("The image is as requested.", PRINCIPLES, [1] * 6, 7.5)


def serve(connection: Connection) -> None:
    """Run the stub server, and send its port through ``connection``."""
    body = {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TRACE}}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 100},
    }

    async def main() -> None:
        slots = asyncio.Semaphore(SLOTS)

        async def answer(request: web.Request) -> web.Response:
            await request.read()
            async with slots:
                await asyncio.sleep(LATENCY_S)
            return web.json_response(body)

        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        connection.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def draw_items(count: int, pixels: int, rng: random.Random) -> list[ScoreItem]:
    """Return edits with random images of ``pixels`` x ``pixels``. Groups of 16 edits have a common source image."""

    def image() -> EncodedImage:
        small = Image.frombytes("RGB", (32, 32), rng.randbytes(3072))
        return EncodedImage(data=encode_png(small.resize((pixels, pixels), Image.Resampling.BICUBIC)))

    sources = [image() for _ in range((count + 15) // 16)]
    return [
        ScoreItem(source=sources[k // 16], edited=image(), instruction="make it red", principles=PRINCIPLES)
        for k in range(count)
    ]


def chat_of(item: ScoreItem) -> list[dict[str, object]]:
    return build_messages("Rules.", [item.source, item.instruction, item.edited], 1536)


async def plain_loop(url: str, items: Sequence[ScoreItem]) -> Callable[[], Awaitable[None]]:
    """Return the baseline: workers that post prepared bodies in a plain aiohttp session and read the answer."""
    config = EndpointConfig(base_url=url)
    bodies = [ChatRequest("m", chat_of(item), 4096, 0.0).encode(config) for item in items]

    async def run() -> None:
        pending = iter(bodies)

        async def work(session: aiohttp.ClientSession) -> None:
            for body in pending:
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                    await response.json()

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(work(session) for _ in range(SLOTS)))

    return run


async def curation(url: str, items: Sequence[ScoreItem], cache: Path) -> None:
    """Send one request per item with the client of curation, from as many workers as there are slots."""
    pending = iter(enumerate(items))
    async with VlmClient({"default": EndpointConfig(base_url=url, concurrency=SLOTS)}, cache) as client:

        async def work() -> None:
            for number, item in pending:
                await client.complete_until_parsed(
                    VlmConfig(model="m"), chat_of(item), lambda text: parse_trace(text, PRINCIPLES), [number]
                )

        await asyncio.gather(*(work() for _ in range(SLOTS)))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the duration and the CPU time of a call, in seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Measure and print the medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=512, help="requests per measurement (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=32, help="side of the images in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: %(default)s)")
    args = parser.parse_args()

    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    rng = random.Random(0)
    found: dict[str, list[tuple[float, float]]] = {"plain aiohttp": [], "curation client": [], "openai engine": []}
    config = OpenAIEngineConfig(base_url=url, model="m", concurrency=SLOTS)
    engine = OpenAIEngine(config, PromptTemplate(), model_digest="sha256:0")
    with tempfile.TemporaryDirectory() as folder, new_runner() as runner:
        for number in range(args.rounds):
            items = draw_items(args.requests, args.pixels, rng)
            baseline = runner.run(plain_loop(url, items))
            found["plain aiohttp"].append(timed(lambda run=baseline: runner.run(run())))
            items = draw_items(args.requests, args.pixels, rng)
            cache = Path(folder) / f"{number}.sqlite"
            found["curation client"].append(
                timed(lambda items=items, cache=cache: runner.run(curation(url, items, cache)))
            )
            items = draw_items(args.requests, args.pixels, rng)
            found["openai engine"].append(timed(lambda items=items: score_items(engine, items, Sampling())))
    engine.close()
    server.terminate()

    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"{args.rounds} rounds of {args.requests} requests with images of {args.pixels} pixels, {SLOTS} slots, {LATENCY_S} s"
    )
    base = found["plain aiohttp"]
    for name, values in found.items():
        rate = statistics.median(args.requests / wall for wall, _ in values)
        cpu = statistics.median(cpu for _, cpu in values) / args.requests * 1e3
        ratio = statistics.median(plain / wall for (wall, _), (plain, _) in zip(values, base, strict=True))
        print(f"{name}: {rate:.0f} requests/s, {ratio:.2f} of plain aiohttp, {cpu:.2f} ms of CPU per request")


if __name__ == "__main__":
    main()
