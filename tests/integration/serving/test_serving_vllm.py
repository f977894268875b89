"""The ``openai`` engine with a real vLLM server: a verifier generates the same greedy traces in both engines.

The tests need an interpreter with the CPU build of vLLM in a separate environment. ``tests/setup_vllm.sh DIR`` builds one;
set ``EDITR1_TEST_VLLM_PYTHON=DIR/bin/python``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from editr1.config.serve import OpenAIEngineConfig, ServeConfig
from editr1.data.images import decode_image
from editr1.data.types import Scored
from editr1.serving.client import RewardClient
from editr1.serving.engines.base import EngineError, InvalidChat, Sampling
from editr1.serving.engines.openai_engine import OpenAIEngine
from editr1.serving.engines.transformers_engine import TransformersEngine
from editr1.serving.scoring import score_items
from editr1.verifier.chat import Chat, build_chat

PYTHON = os.environ.get("EDITR1_TEST_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not PYTHON, reason="EDITR1_TEST_VLLM_PYTHON is not set; tests/setup_vllm.sh builds an interpreter with vLLM"
    ),
]
IMAGES = '{"image":2,"video":0}'


@pytest.fixture(scope="module")
def vllm(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAIEngineConfig]:
    """A vLLM server with the trained tiny verifier."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    options = {
        "--model": str(verifier),
        "--served-model-name": "verifier",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--max-model-len": "1024",
        "--max-num-seqs": "32",
        "--dtype": "float32",
        "--limit-mm-per-prompt": IMAGES,
    }
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    quiet = {
        "TORCH_COMPILE_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            command + [word for option in options.items() for word in option],
            stdout=file,
            stderr=file,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet,
            cwd=log.parent,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 300
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"vLLM did not start: {log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield OpenAIEngineConfig(base_url=f"{url}/v1", model="verifier")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def engines(vllm: OpenAIEngineConfig, verifier: Path) -> Iterator[tuple[TransformersEngine, OpenAIEngine]]:
    """Both engines with the same verifier folder."""
    ours, theirs = TransformersEngine.load(verifier, device="cpu"), OpenAIEngine.from_folder(vllm, verifier)
    yield ours, theirs
    theirs.close()


@pytest.fixture(scope="module")
def chats(engines, make_items) -> list[Chat]:
    return [
        build_chat(
            engines[0].template,
            decode_image(item.source.data),
            decode_image(item.edited.data),
            f"{item.instruction} {'é' * (k % 3)}",
            item.principles,
        )
        for k, item in enumerate(make_items(24, seed=11))
    ]


def test_greedy_traces_are_equal_in_both_engines(engines, chats) -> None:
    ours, theirs = (engine.generate(chats, Sampling(max_tokens=160)) for engine in engines)
    assert not [answer for answer in ours + theirs if isinstance(answer, EngineError)]
    assert [a[0].text for a in ours] == [a[0].text for a in theirs]
    assert [a[0].prompt_tokens for a in ours] == [a[0].prompt_tokens for a in theirs]
    assert [a[0].completion_tokens for a in ours] == [a[0].completion_tokens for a in theirs]


def test_scores_and_digests_are_equal_in_both_engines(engines, make_items) -> None:
    ours, theirs = (score_items(engine, make_items(6), Sampling(max_tokens=200)) for engine in engines)
    assert ours == theirs
    assert all(isinstance(outcome, Scored) and outcome.score == 7.5 for outcome in ours)


def test_several_traces_are_sampled_in_one_request(engines, chats) -> None:
    _, theirs = engines
    (answer,) = theirs.generate(chats[:1], Sampling(num_traces=4, temperature=2.0, max_tokens=40, seed=3))
    assert not isinstance(answer, EngineError)
    assert len(answer) == 4
    assert len({generation.text for generation in answer}) > 1
    assert theirs.generate(chats[:1], Sampling(num_traces=4, temperature=2.0, max_tokens=40, seed=3)) == [answer]


def test_prompt_that_vllm_rejects_does_not_affect_other_chats(engines, chats) -> None:
    ours, theirs = engines
    long = build_chat(ours.template, *chats[0].images, "y" * 3000, ())
    first, second, third = theirs.generate([chats[0], long, chats[1]], Sampling(max_tokens=20))
    assert isinstance(second, InvalidChat)
    assert "400" in str(second)
    assert not isinstance(first, EngineError)
    assert not isinstance(third, EngineError)


def test_reward_server_scores_through_vllm(start_server, vllm, verifier, make_items) -> None:
    settings = ServeConfig(engine="openai", openai=vllm)
    server = start_server(
        engine="openai", **{f"openai.{key}": value for key, value in settings.openai.model_dump().items()}
    )
    with RewardClient([server.url]) as client:
        outcomes = client.score(make_items(10))
    assert all(isinstance(o, Scored) and o.score == 7.5 for o in outcomes)
    assert server.stop() == 0
