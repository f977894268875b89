"""The ``openai`` engine against a small server in a thread."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from editr1.config.serve import OpenAIEngineConfig
from editr1.data.types import Category, Principle
from editr1.serving.engines.base import EngineError, EngineUnavailable, InvalidChat, Sampling
from editr1.serving.engines.openai_engine import OpenAIEngine
from editr1.verifier.chat import Chat, build_chat
from editr1.verifier.prompt import PromptTemplate


class Server(ThreadingHTTPServer):
    """Chat server that follows ``script`` and then answers with status 200. Choices are returned in reverse order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[int | str] = []
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append(body)
            step = self.server.script.pop(0) if self.server.script else 200
        if step == "hang":
            self.server.released.wait(20)
        if step == "drop":
            return
        status = step if isinstance(step, int) else 200
        choices = [
            {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": str(index)}}
            for index in reversed(range(body.get("n", 1)))
        ]
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        answer: dict[str, Any] = {"id": "a", "object": "chat.completion", "created": 0, "model": "m"}
        data = json.dumps(answer | {"choices": choices, "usage": usage} if status == 200 else {"error": {}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(server: Server) -> Iterator[OpenAIEngine]:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    config = OpenAIEngineConfig(base_url=url, model="m", concurrency=1, timeout_seconds=20.0)
    engine = OpenAIEngine(config, PromptTemplate(), model_digest="d")
    yield engine
    engine.close()


@pytest.fixture
def chat() -> Chat:
    source, edited = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    return build_chat(
        PromptTemplate(), source, edited, "make it blue", [Principle(question="blue?", category=Category.FOLLOW)]
    )


def test_traces_are_ordered_by_index_and_completion_tokens_are_divided(engine: OpenAIEngine, chat: Chat) -> None:
    (answer,) = engine.generate([chat], Sampling(num_traces=2, temperature=1.0))
    assert not isinstance(answer, EngineError)
    assert [g.text for g in answer] == ["0", "1"]
    assert [g.completion_tokens for g in answer] == [3, 2]
    assert {g.prompt_tokens for g in answer} == {10}


def test_source_precedes_the_edit_and_a_seed_is_sent_only_if_set(
    engine: OpenAIEngine, server: Server, chat: Chat
) -> None:
    engine.generate([chat], Sampling())
    engine.generate([chat], Sampling(temperature=1.0, seed=7))
    assert ["seed" in body for body in server.seen] == [False, True]
    parts = [p for m in server.seen[0]["messages"] if isinstance(m["content"], list) for p in m["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    images = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in urls]
    assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(num_traces=2, temperature=0.7, top_p=0.9, seed=1)])
def test_sampling_parameters_without_effect_are_sent(
    engine: OpenAIEngine, server: Server, chat: Chat, sampling: Sampling
) -> None:
    engine.generate([chat], sampling)
    neutral = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    expected = neutral | {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": 1024}
    assert {name: server.seen[0][name] for name in expected} == expected


def test_parameters_of_the_server_are_configurable(server: Server, chat: Chat) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    config = OpenAIEngineConfig(
        base_url=url,
        model="m",
        length_parameter="max_completion_tokens",
        omit_parameters=("top_k", "min_p", "repetition_penalty", "n"),
        extra_body={"priority": 3},
    )
    engine = OpenAIEngine(config, PromptTemplate(), model_digest="d")
    (answer,) = engine.generate([chat], Sampling(num_traces=3, temperature=1.0, seed=7))
    engine.close()
    assert not isinstance(answer, EngineError)
    assert [g.completion_tokens for g in answer] == [5, 5, 5]
    assert sorted(body["seed"] for body in server.seen) == [7, 8, 9]
    fields = {"model", "messages", "temperature", "top_p", "max_completion_tokens", "seed", "priority"}
    assert all(set(body) == fields for body in server.seen)


@pytest.mark.parametrize("step", [429, 500, 503, "drop"])
def test_transient_failure_is_retried(engine: OpenAIEngine, server: Server, chat: Chat, step: int | str) -> None:
    server.script = [step, step]
    (answer,) = engine.generate([chat], Sampling())
    assert not isinstance(answer, EngineError)
    assert len(server.seen) == 3


def test_rejected_chat_is_not_retried_and_does_not_affect_others(
    engine: OpenAIEngine, server: Server, chat: Chat
) -> None:
    server.script = [400]
    first, second = engine.generate([chat, chat], Sampling())
    assert isinstance(first, InvalidChat)
    assert not isinstance(second, EngineError)
    assert len(server.seen) == 2


def test_server_that_fails_every_request_is_unavailable(engine: OpenAIEngine, server: Server, chat: Chat) -> None:
    server.script = [503] * 14
    with pytest.raises(EngineUnavailable):
        engine.generate([chat, chat], Sampling())


def test_hanging_server_is_not_retried(server: Server, chat: Chat) -> None:
    server.script = ["hang"]
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    config = OpenAIEngineConfig(base_url=url, model="m", timeout_seconds=0.5)
    engine = OpenAIEngine(config, PromptTemplate(), model_digest="d")
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match=r"deadline of 0\.5 s"):
        engine.generate([chat], Sampling())
    assert time.monotonic() - started < 3
    assert len(server.seen) == 1
