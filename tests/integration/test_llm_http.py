"""The client of chat servers over HTTP, with a server that returns scripted failures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.llm.answers import UnreadableAnswer
from editr1.llm.errors import EndpointMisconfigured, EndpointUnavailable, InvalidResponse, RequestRefused
from editr1.llm.event_loop import new_runner
from editr1.llm.messages import build_messages
from editr1.llm.vlm import VlmClient
from tests.integration.failing_chat_server import FailingChatServer, failing_chat_server

CHAT = build_messages("", ["Hello"], 64)


@pytest.fixture
def failing_server() -> Iterator[FailingChatServer]:
    with failing_chat_server() as server:
        yield server


def run_async(work):
    with new_runner() as runner:
        return runner.run(work)


def complete(
    server: FailingChatServer,
    count: int = 1,
    use: VlmConfig | None = None,
    cache: Path | None = None,
    n: int = 1,
    **endpoint,
):
    async def work():
        async with VlmClient({"default": EndpointConfig(base_url=server.url, **endpoint)}, cache) as client:
            requests = (client.complete(use or VlmConfig(), CHAT, n=n, seed=seed) for seed in range(count))
            answers = await asyncio.gather(*requests)
            return [[answer.text for answer in group] for group in answers], client.usage

    return run_async(work())


def test_retry_after_is_respected(failing_server) -> None:
    failing_server.script, failing_server.headers = [429], {"Retry-After": "1"}
    texts, usage = complete(failing_server)
    assert texts == [["0"]]
    assert (usage.requests, usage.retries, usage.failed) == (1, 1, 0)
    assert failing_server.seen[1][0] - failing_server.seen[0][0] >= 1.0


@pytest.mark.parametrize("step", [500, 503, 429, 408, "drop"])
def test_transient_failure_is_retried(failing_server, step) -> None:
    failing_server.script = [step]
    texts, usage = complete(failing_server)
    assert texts == [["0"]]
    assert usage.retries == 1


def test_exhausted_retries_raise_an_error_with_endpoint_status_and_count(failing_server) -> None:
    failing_server.script, failing_server.headers = [500] * 9, {"Retry-After-Ms": "1"}
    with pytest.raises(
        EndpointUnavailable,
        match=r"127\.0\.0\.1.*model shapes-oracle: the server responded with status 500: no! \(gave up after 2 retries\)",
    ):
        complete(failing_server, max_retries=2)
    assert len(failing_server.seen) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestRefused), (401, EndpointMisconfigured), (404, EndpointMisconfigured)]
)
def test_permanent_failure_is_not_retried(failing_server, status, kind) -> None:
    failing_server.script = [status]
    with pytest.raises(kind):
        complete(failing_server)
    assert len(failing_server.seen) == 1


def test_deadline_applies_to_a_hanging_server(failing_server) -> None:
    failing_server.script = ["hang"]
    started = time.monotonic()
    with pytest.raises(EndpointUnavailable, match=r"deadline of 0\.3 s"):
        complete(failing_server, deadline_seconds=0.3)
    assert time.monotonic() - started < 6


def test_invalid_response_is_an_error_and_is_not_cached(failing_server, tmp_path) -> None:
    failing_server.script = ["junk"]
    with pytest.raises(InvalidResponse, match="not a chat completion"):
        complete(failing_server, cache=tmp_path / "a.sqlite")
    assert complete(failing_server, cache=tmp_path / "a.sqlite")[1].requests == 1


def test_truncated_response_is_an_error(failing_server) -> None:
    failing_server.script = [b'{"choices": [']
    with pytest.raises(InvalidResponse, match="the response is not JSON"):
        complete(failing_server)


def test_lone_surrogates_are_replaced_and_invalid_token_counts_ignored(failing_server, tmp_path) -> None:
    half = {"choices": [{"message": {"content": "a\ud83d"}}], "usage": {"prompt_tokens": "many"}}
    failing_server.script = [json.dumps(half).encode()]
    for _ in range(2):
        texts, usage = complete(failing_server, cache=tmp_path / "a.sqlite")
        assert texts == [["a?"]]
    assert usage.cached == 1


def test_url_of_an_unreachable_server_is_reported() -> None:
    async def work():
        async with VlmClient({"default": EndpointConfig(base_url="http://127.0.0.1:9/v1", max_retries=0)}) as client:
            await client.complete(VlmConfig(), CHAT)

    with pytest.raises(
        EndpointUnavailable, match=r"127\.0\.0\.1:9/v1.*no connection to the server: .*gave up after 0 retries"
    ):
        run_async(work())


def test_concurrency_is_bounded(failing_server) -> None:
    failing_server.script = ["slow"] * 24
    complete(failing_server, count=24, concurrency=3)
    assert failing_server.max_in_flight == 3


def test_usage_is_counted_and_cached_answers_are_free(failing_server, tmp_path) -> None:
    use = VlmConfig(prompt_price=2.0, completion_price=8.0)
    _, usage = complete(failing_server, 5, use, tmp_path / "a.sqlite", n=3)
    assert (usage.requests, usage.cached, usage.prompt_tokens, usage.completion_tokens) == (5, 0, 5000, 50)
    assert usage.cost == pytest.approx(5 * (1000 * 2 + 10 * 8) / 1e6)
    texts, usage = complete(failing_server, 7, use, tmp_path / "a.sqlite", n=3)
    assert (usage.requests, usage.cached) == (2, 5)
    assert texts == [["0", "1", "2"]] * 7
    assert len(failing_server.seen) == 7


def test_api_key_is_read_from_the_configured_environment_variable(failing_server, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MY_VLM_KEY", "k-123")
    complete(failing_server, api_key_env="MY_VLM_KEY", cache=tmp_path / "a.sqlite")
    assert failing_server.keys == ["Bearer k-123"]
    assert b"k-123" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def complete_with_cache(server: FailingChatServer, cache: Path, is_readable) -> list[str]:
    async def work():
        async with VlmClient({"default": EndpointConfig(base_url=server.url)}, cache) as client:
            answers = await client.complete(VlmConfig(), CHAT, n=2, is_readable=is_readable)
            return [answer.text for answer in answers]

    return run_async(work())


@pytest.mark.parametrize(("readable", "num_requests"), [((), 2), (("1",), 1), (("0", "1"), 1)])
def test_answers_are_cached_only_if_one_of_them_is_readable(failing_server, tmp_path, readable, num_requests) -> None:
    for _ in range(2):
        assert complete_with_cache(failing_server, tmp_path / "a.sqlite", lambda text: text in readable) == ["0", "1"]
    assert len(failing_server.seen) == num_requests


def test_unreadable_answer_in_the_cache_is_requested_again_and_replaced(failing_server, tmp_path) -> None:
    cache = tmp_path / "a.sqlite"
    failing_server.script = [bytes_of("unreadable"), 200]
    assert complete_with_cache(failing_server, cache, lambda _text: True) == ["unreadable"] * 2
    for _ in range(2):
        assert complete_with_cache(failing_server, cache, str.isdigit) == ["0", "1"]
    assert len(failing_server.seen) == 2


def bytes_of(content: str) -> bytes:
    choices = [{"index": index, "message": {"content": content}} for index in range(2)]
    return json.dumps({"choices": choices}).encode()


def test_first_of_several_unreadable_answers_is_reported(failing_server) -> None:
    def parse(text: str) -> str:
        raise UnreadableAnswer(f"rule {len(failing_server.seen)} is violated by {text}")

    async def work():
        async with VlmClient({"default": EndpointConfig(base_url=failing_server.url)}) as client:
            return await client.complete_until_parsed(VlmConfig(), CHAT, parse, range(3))

    with pytest.raises(UnreadableAnswer, match="rule 1 is violated by 0"):
        run_async(work())
    assert len(failing_server.seen) == 3


@pytest.fixture
def proxy_environment(monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("proxy_environment")
def test_proxy_is_not_used_for_a_server_on_this_machine(failing_server) -> None:
    assert complete(failing_server, max_retries=0)[0] == [["0"]]


def test_proxy_is_used_for_an_outside_server(failing_server, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", failing_server.url.removesuffix("/v1"))

    async def work():
        async with VlmClient({"default": EndpointConfig(base_url="http://models.example/v1", max_retries=0)}) as client:
            return await client.complete(VlmConfig(), CHAT)

    assert [answer.text for answer in run_async(work())] == ["0"]
    assert len(failing_server.seen) == 1


@pytest.mark.usefixtures("proxy_environment")
def test_failure_of_the_proxy_is_reported() -> None:
    async def work():
        async with VlmClient({"default": EndpointConfig(base_url="http://models.example/v1", max_retries=0)}) as client:
            await client.complete(VlmConfig(), CHAT)

    with pytest.raises(
        EndpointUnavailable, match=r"models\.example.*through the proxy that the environment sets.*127\.0\.0\.1:9"
    ):
        run_async(work())


def test_missing_answers_are_requested_one_by_one_with_other_seeds(failing_server) -> None:
    one = {"choices": [{"message": {"content": "only"}}], "usage": {"completion_tokens": 1}}
    failing_server.script = [json.dumps(one).encode()]
    texts, usage = complete(failing_server, n=3)
    assert texts == [["only", "0", "0"]]
    assert usage.completion_tokens == 21
    assert [(body.get("n"), body["seed"]) for _, body in failing_server.seen[:1]] == [(3, 0)]
    assert sorted((body.get("n"), body["seed"]) for _, body in failing_server.seen[1:]) == [(None, 1), (None, 2)]


def test_error_carries_the_status_and_the_words_of_the_server(failing_server) -> None:
    failing_server.script = [json.dumps({"error": {"message": "context window exceeded", "code": 400}}).encode()]
    with pytest.raises(RequestRefused, match="context window exceeded") as caught:
        complete(failing_server)
    assert (caught.value.status, caught.value.words) == (400, "context window exceeded")
    assert len(failing_server.seen) == 1


def test_overload_in_a_response_with_status_200_is_retried(failing_server) -> None:
    failing_server.script = [json.dumps({"error": {"message": "busy", "code": 503}}).encode()]
    texts, usage = complete(failing_server)
    assert (texts, usage.retries) == ([["0"]], 1)


def test_request_is_not_repeated_if_the_server_asks_for_a_later_time_than_the_deadline(failing_server) -> None:
    failing_server.script, failing_server.headers = [429], {"Retry-After": "60"}
    started = time.monotonic()
    with pytest.raises(EndpointUnavailable, match=r"status 429: no! .*deadline of 5 s"):
        complete(failing_server, deadline_seconds=5)
    assert time.monotonic() - started < 3
    assert len(failing_server.seen) == 1


def test_truncated_answer_is_reported_with_the_rule_it_violates(failing_server) -> None:
    cut = {"choices": [{"message": {"content": "[1"}, "finish_reason": "length"}]}
    failing_server.script = [json.dumps(cut).encode()]

    def parse(text: str) -> str:
        raise UnreadableAnswer("no array")

    async def work():
        async with VlmClient({"default": EndpointConfig(base_url=failing_server.url)}) as client:
            return await client.complete_until_parsed(VlmConfig(max_tokens=64), CHAT, parse, [0])

    with pytest.raises(UnreadableAnswer, match="cut off at max_tokens = 64; no array"):
        run_async(work())
