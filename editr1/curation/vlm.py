"""The client of every labelling model: OpenAI-compatible chat completions with pictures, bounded, retried and cached.

Retries are the ``openai`` library's (https://github.com/openai/openai-python#retries): 408, 409, 429, 5xx and broken
connections, by ``Retry-After`` where the server gives one, else exponential with jitter. Requests go through the
library's ``post`` and come back as plain JSON: building its typed response objects costs more time than the rest of
the request.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import openai
import orjson

from editr1.config.curate import EndpointConfig, VlmConfig
from editr1.curation.cache import AnswerCache
from editr1.curation.errors import VlmError, VlmMisconfigured, VlmRefused, VlmUnavailable
from editr1.curation.wire import Message

T = TypeVar("T")


@dataclass
class Usage:
    """What was asked and what it cost. Answers from the cache count only as ``cached``."""

    requests: int = 0
    """Requests answered by a server."""
    cached: int = 0
    """Requests answered by the cache."""
    retries: int = 0
    """Further tries that were sent."""
    failed: int = 0
    """Requests without an answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the configured prices."""

    def as_dict(self) -> dict[str, float]:
        """All counts by name."""
        return {name: float(value) for name, value in asdict(self).items()}


class VlmClient:
    """Asks models behind ``endpoints``. To be used in one event loop, as an async context manager.

    ``cache`` names a SQLite file of answers by request digest (endpoint name, model, messages, sampling settings); an
    answer found there is not asked for again. API keys are read from the environment variables that the endpoints name.
    """

    def __init__(self, endpoints: Mapping[str, EndpointConfig], cache: Path | None = None) -> None:
        self.usage = Usage()
        self._endpoints = dict(endpoints)
        self._slots = {name: asyncio.Semaphore(item.concurrency) for name, item in self._endpoints.items()}
        self._clients = {name: self._connect(item) for name, item in self._endpoints.items()}
        self._cache = AnswerCache(cache)

    async def ask(self, use: VlmConfig, chat: Sequence[Message], *, n: int = 1, seed: int | None = None) -> list[str]:
        """``n`` answers to one chat.

        Raises :class:`VlmRefused` (400, 413, 422), :class:`VlmMisconfigured` (401, 403, 404) or
        :class:`VlmUnavailable` (retries or deadline spent, or an answer that is no chat completion).
        """
        if n > 1 and not use.send_n:
            seeds = [None if seed is None else seed + index for index in range(n)]
            singles = await asyncio.gather(*(self.ask(use, chat, seed=own) for own in seeds))
            return [text for single in singles for text in single]
        body: dict[str, Any] = {
            "model": use.model,
            "messages": chat,
            "temperature": use.temperature,
            "max_tokens": use.max_tokens,
        }
        if n > 1:
            body["n"] = n
        if seed is not None and use.send_seed:
            body["seed"] = seed
        payload = orjson.dumps(body)
        # Unseeded requests of equal words are told apart by the seed that was not sent.
        digest = hashlib.sha256(f"{use.endpoint}\n{seed}\n".encode() + payload).digest()
        kept = self._cache.get(digest)
        if kept is not None:
            self.usage.cached += 1
            return list(orjson.loads(kept))
        try:
            reply = await self._post(use, body)
        except VlmError:
            self.usage.failed += 1
            raise
        texts = _texts(reply, n, f"{self._endpoints[use.endpoint].base_url}, model {use.model}")
        self._count(use, reply)
        self._cache.put(digest, orjson.dumps(texts))
        return texts

    async def aclose(self) -> None:
        """Close connections and cache."""
        for client in self._clients.values():
            await client.close()
        self._cache.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _post(self, use: VlmConfig, body: dict[str, Any]) -> object:
        endpoint = self._endpoints[use.endpoint]
        where = f"{endpoint.base_url}, model {use.model}"
        try:
            async with self._slots[use.endpoint], asyncio.timeout(endpoint.deadline_seconds):
                return await self._clients[use.endpoint].post("/chat/completions", cast_to=object, body=body)
        except ValueError as error:  # json's, of a body that breaks off or is no JSON
            raise VlmUnavailable(f"{where}: the answer is not JSON: {error}") from error
        except TimeoutError as error:
            raise VlmUnavailable(
                f"{where}: no answer within deadline_seconds = {endpoint.deadline_seconds:g} s"
            ) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise VlmMisconfigured(
                f"{where}: the key in {endpoint.api_key_env} is refused ({error.status_code}): {_brief(error)}"
            ) from error
        except openai.NotFoundError as error:
            raise VlmMisconfigured(f"{where}: no such model or address (404): {_brief(error)}") from error
        except openai.APIStatusError as error:
            retried = error.status_code in (408, 409, 429) or error.status_code >= 500
            kind = VlmUnavailable if retried else VlmRefused
            after = f" after {endpoint.max_retries} retries" if retried else ""
            raise kind(f"{where}: {error.status_code}{after}: {_brief(error)}") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise VlmUnavailable(
                f"{where}: no connection after {endpoint.max_retries} retries: {type(cause).__name__}: {cause}"
            ) from error
        except openai.APIError as error:
            raise VlmUnavailable(f"{where}: {_brief(error)}") from error

    def _connect(self, endpoint: EndpointConfig) -> openai.AsyncOpenAI:
        async def count_retry(request: Any) -> None:
            if request.headers.get("x-stainless-retry-count", "0") != "0":
                self.usage.retries += 1

        hooks: dict[str, Any] = {"event_hooks": {"request": [count_retry]}}
        try:
            import httpx_aiohttp  # noqa: F401
        except ImportError:
            transport: Any = openai.DefaultAsyncHttpxClient(**hooks)
        else:
            # A third of the time a request of the default transport.
            transport = openai.DefaultAioHttpClient(**hooks)
        return openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=os.environ.get(endpoint.api_key_env) or "none",
            max_retries=endpoint.max_retries,
            timeout=endpoint.timeout_seconds,
            http_client=transport,
        )

    def _count(self, use: VlmConfig, reply: object) -> None:
        usage = reply.get("usage") if isinstance(reply, dict) else None
        prompt, completion = (_number(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        self.usage.requests += 1
        self.usage.prompt_tokens += prompt
        self.usage.completion_tokens += completion
        self.usage.cost += (prompt * use.prompt_price + completion * use.completion_price) / 1e6


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new event loop, uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _texts(reply: object, n: int, where: str) -> list[str]:
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))  # type: ignore[index]
        texts = [_whole(choice["message"]["content"] or "") for choice in choices]
    except (KeyError, TypeError, AttributeError) as error:
        raise VlmUnavailable(f"{where}: the answer is not a chat completion: {str(reply)[:200]}") from error
    if len(texts) != n:
        raise VlmRefused(f"{where}: {len(texts)} answers where n = {n} were asked; set send_n: false for this model")
    return texts


def _whole(text: str) -> str:
    """``text`` without halves of characters, which gateways that cut in UTF-16 write and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()


def _number(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return int(value) if isinstance(value, int | float) else 0


def _brief(error: openai.APIError) -> str:
    return " ".join(error.message.split())[:300]
