"""An asynchronous client of one OpenAI-compatible chat server, with bounded concurrency, retries and a deadline.

The ``openai`` library sends the retries (https://github.com/openai/openai-python#retries). It retries connection
errors and responses with status 408, 409, 429 and 5xx, after the time in ``Retry-After`` if the server sends it and
otherwise with exponential backoff and jitter. Requests use the library's low-level ``post`` and plain JSON, because
building the typed response objects takes longer than the rest of the request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openai

from editr1.config.llm import EndpointConfig
from editr1.llm.errors import EndpointMisconfigured, EndpointUnavailable, LlmError, RequestRefused


@dataclass(frozen=True)
class Completion:
    """The answers to one request, ordered by choice index, and the token counts that the server reported."""

    texts: list[str]
    prompt_tokens: int
    """Number of tokens in the prompt, including images; 0 if the server does not report them."""
    completion_tokens: int
    """Number of tokens in all answers together; 0 if the server does not report them."""


class ChatClient:
    """Client for chat completion requests to one server. Use it in a single event loop, as an async context manager.

    At most ``config.concurrency`` requests are in flight. The API key is read from the environment variable
    ``config.api_key_env``.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.retries = 0
        """Number of retries of all requests so far."""
        self._config = config
        self._slots = asyncio.Semaphore(config.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=os.environ.get(config.api_key_env) or "none",
            max_retries=config.max_retries,
            timeout=config.timeout_seconds,
            http_client=_http_client({"request": [self._count_retry]}),
        )

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Send a chat completion request with the JSON ``body``, and return the ``body["n"]`` (default 1) answers.

        Raises:
            RequestRefused: The server rejects this request, or returns more or fewer than ``n`` answers.
            EndpointMisconfigured: The server rejects the API key, or the model or the URL does not exist.
            EndpointUnavailable: All retries have failed, the deadline has passed, or the response is not a chat completion.
        """
        where = f"{self._config.base_url}, model {body['model']}"
        return _read_completion(await self._post(body, where), body.get("n", 1), where)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _post(self, body: Mapping[str, Any], where: str) -> object:
        deadline_s = self._config.deadline_seconds
        try:
            async with self._slots, asyncio.timeout(deadline_s):
                return await self._client.post("/chat/completions", cast_to=object, body=body)
        except ValueError as error:  # raised by json for a truncated or invalid body
            raise EndpointUnavailable(
                f"{where}: the response is not JSON ({error}); try again, or check base_url"
            ) from error
        except TimeoutError as error:
            raise EndpointUnavailable(f"{where}: no response within the deadline of {deadline_s:g} s") from error
        except openai.APIError as error:
            raise self._translated(error, where) from error

    def _translated(self, error: openai.APIError, where: str) -> LlmError:
        retries = f"after {self._config.max_retries} retries"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return EndpointMisconfigured(
                f"{where}: the API key is rejected ({error.status_code}): {_summary(error)}; "
                f"set the environment variable {self._config.api_key_env}"
            )
        if isinstance(error, openai.NotFoundError):
            return EndpointMisconfigured(
                f"{where}: the model or the URL does not exist (404): {_summary(error)}; check model and base_url"
            )
        if isinstance(error, openai.APIStatusError):
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                return EndpointUnavailable(
                    f"{where}: the server responded with status {error.status_code} {retries}: {_summary(error)}"
                )
            return RequestRefused(
                f"{where}: the server rejected the request with status {error.status_code}: {_summary(error)}"
            )
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return EndpointUnavailable(
                f"{where}: no connection to the server {retries}: {type(cause).__name__}: {cause}"
            )
        return EndpointUnavailable(f"{where}: {_summary(error)}")

    async def _count_retry(self, request: Any) -> None:
        if request.headers.get("x-stainless-retry-count", "0") != "0":
            self.retries += 1


def _http_client(event_hooks: dict[str, Any]) -> Any:
    try:
        import httpx_aiohttp  # noqa: F401
    except ImportError:
        return openai.DefaultAsyncHttpxClient(event_hooks=event_hooks)
    # With this transport, a request takes a third of the time that it takes with the default one.
    return openai.DefaultAioHttpClient(event_hooks=event_hooks)


def _read_completion(reply: object, n: int, where: str) -> Completion:
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))  # type: ignore[index]
        texts = [_valid_unicode(choice["message"]["content"] or "") for choice in choices]
    except (KeyError, TypeError, AttributeError) as error:
        raise EndpointUnavailable(
            f"{where}: the response is not a chat completion; check base_url: {str(reply)[:200]}"
        ) from error
    if len(texts) != n:
        raise RequestRefused(
            f"{where}: the server returned {len(texts)} answers, but n = {n} were requested; "
            "if the server does not support n, set send_n: false"
        )
    usage = reply.get("usage") if isinstance(reply, dict) else None
    return Completion(texts, _token_count(usage, "prompt_tokens"), _token_count(usage, "completion_tokens"))


def _valid_unicode(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode. Gateways produce them when they truncate UTF-16 text."""
    return text.encode("utf-8", "replace").decode()


def _token_count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return int(value) if isinstance(value, int | float) else 0


def _summary(error: openai.APIError) -> str:
    return " ".join(error.message.split())[:300]
