"""Send one chat completion request over HTTP, and translate every failure to an exception from :mod:`editr1.llm.errors`."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Final

import aiohttp
import httpx
from yarl import URL

from editr1 import __version__
from editr1.config.llm import EndpointConfig
from editr1.config.proxies import proxy_for
from editr1.llm.completion import Completion, NotACompletion, quote_body, read_completion
from editr1.llm.errors import EndpointMisconfigured, EndpointUnavailable, InvalidResponse, LlmError, RequestRefused
from editr1.llm.request import ChatRequest
from editr1.llm.retries import is_retried, requested_delay


class ChatConnection:
    """HTTP connections to one chat server. Use an instance in a single event loop.

    The API key is read from the environment variable ``config.api_key_env``, and the proxy is chosen by
    :func:`editr1.config.proxies.proxy_for`.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._proxy = proxy_for(config.base_url)
        self._session: aiohttp.ClientSession | None = None
        self._url, self.name = _endpoint(config.base_url)
        """``name`` is the URL without its password, for use in messages."""

    async def post(self, request: ChatRequest, body: bytes, seconds: float) -> Completion:
        """Send one request without retries, and return the answers.

        ``body`` is the JSON body of ``request``, and ``seconds`` is the timeout.

        Raises:
            RequestRefused: The server rejects this request. Its subclass InvalidResponse: the response is not a chat
                completion.
            EndpointMisconfigured: The server rejects the API key, or the model or the URL does not exist.
            EndpointUnavailable: The server could not be reached, did not answer in time, or is overloaded.
        """
        where = f"{self.name}, model {request.model}"
        try:
            async with asyncio.timeout(seconds):
                status, retry_after, data = await self._exchange(body)
        except TimeoutError:
            raise EndpointUnavailable(f"{where}: no response within {seconds:g} s") from None
        except aiohttp.ClientHttpProxyError as error:
            raise self._translated(
                error.status, f"the proxy returned an error: {error.message}", where, None
            ) from error
        except (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError) as error:
            raise EndpointMisconfigured(f"{where}: {error}; check base_url") from error
        except (aiohttp.ClientError, OSError) as error:
            via = " through the proxy that the environment sets" if self._proxy else ""
            raise EndpointUnavailable(
                f"{where}: no connection to the server{via}: {type(error).__name__}: {error}"
            ) from error
        if not 200 <= status < 300:
            raise self._translated(status, quote_body(data), where, retry_after)
        try:
            return read_completion(data, f"{self._config.length_parameter} = {request.max_tokens}")
        except NotACompletion as error:
            words = quote_body(data)
            if error.status is not None:
                raise self._translated(error.status, words, where, retry_after) from error
            raise InvalidResponse(f"{where}: {error}; check base_url", status=status, words=words) from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, body: bytes) -> tuple[int, float | None, bytes]:
        """Send ``body`` and return the status of the response, the delay that it requests, and its body.

        If the response is an error, only the start of its body is read.
        """
        if self._session is None:
            self._session = self._new_session()
        async with self._session.post(self._url, data=body, proxy=self._proxy) as response:
            if response.status == 200:
                data = await response.read()
            else:
                data = await response.content.read(_MAX_ERROR_BYTES)
            return response.status, requested_delay(response.headers), data

    def _new_session(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json", "User-Agent": f"editr1/{__version__}"}
        key = os.environ.get(self._config.api_key_env, "").strip()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # The SSL context of httpx respects SSL_CERT_FILE and includes certificates for machines without a certificate
        # store.
        context: ssl.SSLContext | bool = httpx.create_ssl_context() if self._url.scheme == "https" else True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def _translated(self, status: int, words: str, where: str, retry_after: float | None) -> LlmError:
        """Return the exception for a response whose status is not 2xx."""
        if status in (401, 403):
            return EndpointMisconfigured(
                f"{where}: the API key is rejected ({status}): {words}; "
                f"set the environment variable {self._config.api_key_env}",
                status=status,
                words=words,
            )
        if status in (404, 405):
            return EndpointMisconfigured(
                f"{where}: the model or the URL does not exist ({status}): {words}; check model and base_url",
                status=status,
                words=words,
            )
        if is_retried(status):
            return EndpointUnavailable(
                f"{where}: the server responded with status {status}: {words}",
                status=status,
                words=words,
                retry_after=retry_after,
            )
        return RequestRefused(
            f"{where}: the server rejected the request with status {status}: {words}", status=status, words=words
        )


def _endpoint(base_url: str) -> tuple[URL, str]:
    try:
        base = URL(base_url)
    except ValueError as error:
        raise EndpointMisconfigured(f"base_url: {base_url!r} is not a URL: {error}") from error
    name = str(base.with_user(None)) if base.user else base_url
    return (base / "chat" / "completions").with_query(base.query), name


_MAX_ERROR_BYTES: Final = 65_536
