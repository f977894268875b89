"""Wait for a reward service to become ready, which takes minutes if it has to scale from zero and load weights."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httpx

from editr1.config.loader import ConfigError
from editr1.serving.http import reward_http_client


def wait_ready(
    urls: Sequence[str], seconds: float, *, should_stop: Callable[[], bool] = lambda: False, pause_s: float = 1.0
) -> bool:
    """Poll ``/readyz`` of each URL.

    Return True when one of them is ready, or False when ``should_stop`` returns True. A host name that cannot be
    resolved is retried as well, because a headless Service without ready pods has no address.

    Raises:
        ConfigError: Every service rejected the last poll with a status from 400 to 499, so that another attempt
            cannot succeed. The address does not belong to a reward server, or access is denied.
        TimeoutError: No service was ready within ``seconds``; the message contains the last response of each.
    """
    deadline = time.monotonic() + seconds
    with reward_http_client(urls) as http:
        while True:
            responses = []
            rejected = 0
            for url in urls:
                status, response = _poll(http, url)
                if status == 200:
                    return True
                rejected += 400 <= status < 500 and status not in (408, 429)
                responses.append(f"{url}: {response}")
            if should_stop():
                return False
            if time.monotonic() + pause_s > deadline:
                found = "; ".join(responses)
                if rejected == len(urls):
                    raise ConfigError(
                        f"the reward service rejected every request for {seconds:.0f} s; last responses: {found}; "
                        "check that the address belongs to a reward server"
                    )
                raise TimeoutError(f"no reward service was ready within {seconds:.0f} s; last responses: {found}")
            time.sleep(pause_s)


def _poll(http: httpx.Client, url: str) -> tuple[int, str]:
    """Return the HTTP status (0 if there was no response), and a description of the response or of the error."""
    try:
        response = http.get(f"{url.rstrip('/')}/readyz")
    except httpx.HTTPError as error:
        if isinstance(_root_cause(error), socket.gaierror):
            return 0, f"the host name {urlsplit(url).hostname!r} cannot be resolved: {error}"
        return 0, f"{type(error).__name__}: {error}"
    return response.status_code, f"{response.status_code} {' '.join(response.text.split())[:200]}"


def _root_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
