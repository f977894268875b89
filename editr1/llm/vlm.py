"""A client for vision-language models on one or more servers. It caches answers and counts requests, tokens and cost."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from editr1.checksums import dump_checked, load_checked
from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.llm.answers import UnreadableAnswer
from editr1.llm.cache import AnswerCache
from editr1.llm.client import ChatClient
from editr1.llm.completion import Answer, Completion
from editr1.llm.errors import LlmError
from editr1.llm.messages import Message
from editr1.llm.request import ChatRequest

A = TypeVar("A")

_log = logging.getLogger(__name__)


@dataclass
class Usage:
    """Number of requests and tokens, and their cost. A request answered from the cache is counted only in ``cached``."""

    requests: int = 0
    """Number of requests that a server answered."""
    cached: int = 0
    """Number of requests answered from the cache."""
    retries: int = 0
    """Total number of retries, over all requests."""
    failed: int = 0
    """Number of requests that failed after all retries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """Cost of all tokens, in the currency in which the prices are configured."""

    @classmethod
    def load(cls, path: Path) -> Usage:
        """Return the usage that earlier processes have saved, or none if there is no file. A damaged file is ignored with a warning."""
        try:
            return cls(
                **{name: type(getattr(cls, name))(value) for name, value in load_checked(path.read_bytes()).items()}
            )
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, AttributeError) as error:
            _log.warning("%s: the counts of requests and tokens are damaged and start again at 0: %s", path, error)
            return cls()

    def save(self, path: Path) -> None:
        """Write the usage to a file atomically."""
        part = path.with_suffix(".part")
        part.write_bytes(dump_checked(asdict(self)))
        part.replace(path)

    def as_dict(self) -> dict[str, float]:
        """Return the fields as a dictionary of floats."""
        return {name: float(value) for name, value in asdict(self).items()}


class VlmClient:
    """Client for the models on the servers in ``endpoints``.

    ``cache`` is the path of a SQLite file in which answers are cached by a digest of the request (endpoint name, model,
    messages and sampling settings). A request with a cached answer is not sent. Only readable answers are cached, so that
    the others are requested again after a server has been repaired. If ``cache`` is None, nothing is cached.

    ``usage_file`` is a file in which the number of requests and tokens is saved after every request, and from which it is
    continued, so that it covers all processes that used this file. If it is None, only this client is counted.
    """

    def __init__(
        self, endpoints: Mapping[str, EndpointConfig], cache: Path | None = None, usage_file: Path | None = None
    ) -> None:
        self._usage_file = usage_file
        self._usage = Usage() if usage_file is None else Usage.load(usage_file)
        self._earlier_retries = self._usage.retries
        self._clients = {name: ChatClient(endpoint) for name, endpoint in endpoints.items()}
        self._cache = AnswerCache(cache)

    @property
    def usage(self) -> Usage:
        """Number of requests and tokens so far, and their cost."""
        self._usage.retries = self._earlier_retries + sum(client.retries for client in self._clients.values())
        return self._usage

    async def complete(
        self,
        model: VlmConfig,
        chat: Sequence[Message],
        *,
        n: int = 1,
        seed: int | None = None,
        is_readable: Callable[[str], bool] = lambda _text: True,
    ) -> list[Answer]:
        """Send ``chat`` to ``model``, and return ``n`` answers.

        If ``model.send_n`` is False, ``n`` requests with consecutive seeds are sent. The answers to a request are cached if
        ``is_readable`` returns True for at least one of them.

        Raises:
            LlmError: A request failed; see :meth:`ChatClient.complete`.
        """
        if n > 1 and not model.send_n:
            seeds = [None if seed is None else seed + index for index in range(n)]
            requests = (self.complete(model, chat, seed=each, is_readable=is_readable) for each in seeds)
            answers = await asyncio.gather(*requests)
            return [answer for (answer,) in answers]
        client = self._clients[model.endpoint]
        request = ChatRequest(
            model=model.model,
            messages=chat,
            max_tokens=model.max_tokens,
            temperature=model.temperature,
            n=n,
            seed=seed if model.send_seed else None,
        )
        body = client.encode(request)
        # The seed is part of the cache key even if it is not sent. Requests that differ only in the seed therefore
        # have separate cache entries.
        digest = hashlib.sha256(f"{model.endpoint}\n{seed}\n".encode() + body).digest()
        stored = self._cache.get(digest)
        if stored is not None:
            texts = list(orjson.loads(stored))
            if any(map(is_readable, texts)):
                self._usage.cached += 1
                self._save_usage()
                return [Answer(text) for text in texts]
            self._cache.discard(digest)
        try:
            completion = await client.complete(request, body)
        except LlmError:
            self._usage.failed += 1
            self._save_usage()
            raise
        self._count(model, completion)
        texts = [answer.text for answer in completion.answers]
        if any(map(is_readable, texts)):
            self._cache.put(digest, orjson.dumps(texts))
        return completion.answers

    async def complete_until_parsed(
        self, model: VlmConfig, chat: Sequence[Message], parse: Callable[[str], A], seeds: Iterable[int]
    ) -> A:
        """Send the chat once per seed until ``parse`` accepts an answer, and return the parsed value.

        Raises:
            UnreadableAnswer: ``parse`` rejected every answer; the error of the first one is raised.
            LlmError: A request failed; see :meth:`ChatClient.complete`.
        """
        parsed: list[A] = []
        errors: list[UnreadableAnswer] = []
        first: UnreadableAnswer | None = None

        def is_readable(text: str) -> bool:
            try:
                parsed.append(parse(text))
            except UnreadableAnswer as error:
                errors.append(error)
                return False
            return True

        for seed in seeds:
            (answer,) = await self.complete(model, chat, seed=seed, is_readable=is_readable)
            if parsed:
                return parsed[0]
            first = first or UnreadableAnswer(answer.explain(str(errors[-1])))
        raise first or UnreadableAnswer("the chat was not sent because no seeds were given")

    async def aclose(self) -> None:
        """Close the connections and the cache."""
        for client in self._clients.values():
            await client.aclose()
        self._cache.close()

    async def __aenter__(self) -> VlmClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _count(self, model: VlmConfig, completion: Completion) -> None:
        prompt, generated = completion.prompt_tokens, completion.completion_tokens
        self._usage.requests += 1
        self._usage.prompt_tokens += prompt
        self._usage.completion_tokens += generated
        self._usage.cost += (prompt * model.prompt_price + generated * model.completion_price) / 1e6
        self._save_usage()

    def _save_usage(self) -> None:
        if self._usage_file is not None:
            self.usage.save(self._usage_file)
