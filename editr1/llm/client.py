"""An asynchronous client for one OpenAI-compatible chat server, with bounded concurrency, retries and a deadline."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from editr1.config.llm import EndpointConfig
from editr1.llm.completion import Completion
from editr1.llm.connection import ChatConnection
from editr1.llm.errors import EndpointUnavailable
from editr1.llm.request import ChatRequest
from editr1.llm.retries import retry_delay

_log = logging.getLogger(__name__)


class ChatClient:
    """Client for chat completion requests to one server. Use it in a single event loop, as an async context manager.

    At most ``config.concurrency`` requests are in flight. The API key is read from the environment variable
    ``config.api_key_env``.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.retries = 0
        """Total number of retries so far, over all requests."""
        self._config = config
        self._connection = ChatConnection(config)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._warned = False

    def encode(self, request: ChatRequest) -> bytes:
        """Return the JSON body of ``request`` as it is sent to this server."""
        return request.encode(self._config)

    async def complete(self, request: ChatRequest, body: bytes | None = None) -> Completion:
        """Send ``request`` and return its ``n`` answers.

        ``body`` is the result of :meth:`encode`, if the caller has already computed it. If the server returns fewer
        answers than requested, or if this server does not accept the parameter ``n``, the missing answers are
        requested one by one. Their seeds are the seed of ``request`` plus 1, 2, and so on.

        Raises:
            RequestRefused: The server rejects this request. Its subclass InvalidResponse: the response is not a chat
                completion.
            EndpointMisconfigured: The server rejects the API key, or the model or the URL does not exist.
            EndpointUnavailable: All retries have failed, or the deadline has passed.
        """
        if request.n > 1 and "n" in self._config.omit_parameters:
            return await self._complete_singly(request, 0)
        first = await self._send(request, body)
        received = len(first.answers)
        if received >= request.n:
            return replace(first, answers=first.answers[: request.n])
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s, model %s: the server returned %d of %d answers; the missing answers are requested one by one",
                self._connection.name,
                request.model,
                received,
                request.n,
            )
        rest = await self._complete_singly(request, received)
        tokens = first.completion_tokens + rest.completion_tokens
        return Completion(first.answers + rest.answers, first.prompt_tokens, tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _complete_singly(self, request: ChatRequest, start: int) -> Completion:
        """Request the answers from index ``start`` on, with one request per answer."""
        seed = request.seed
        singles = [
            replace(request, n=1, seed=None if seed is None else (seed + index) % 2**63)
            for index in range(start, request.n)
        ]
        found = await asyncio.gather(*map(self._send, singles))
        return Completion(
            [completion.answers[0] for completion in found],
            found[0].prompt_tokens,
            sum(completion.completion_tokens for completion in found),
        )

    async def _send(self, request: ChatRequest, body: bytes | None = None) -> Completion:
        """Send one request, and retry it after transient failures until the retries are exhausted or the deadline passes."""
        body = self.encode(request) if body is None else body
        config, clock = self._config, asyncio.get_running_loop().time
        async with self._slots:
            deadline = clock() + config.deadline_seconds
            retry = 0
            while True:
                try:
                    seconds = min(config.timeout_seconds, deadline - clock())
                    return await self._connection.post(request, body, seconds)
                except EndpointUnavailable as error:
                    if retry == config.max_retries:
                        raise _given_up(error, f"gave up after {retry} retries") from error
                    delay = retry_delay(retry, error.retry_after)
                    if delay >= deadline - clock():
                        reason = f"gave up after {retry} retries, at the deadline of {config.deadline_seconds:g} s"
                        raise _given_up(error, reason) from error
                await asyncio.sleep(delay)
                retry += 1
                self.retries += 1


def _given_up(error: EndpointUnavailable, reason: str) -> EndpointUnavailable:
    return EndpointUnavailable(
        f"{error} ({reason})", status=error.status, words=error.words, retry_after=error.retry_after
    )
