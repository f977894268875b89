"""Wait for a reward service to become ready, which takes minutes if it has to scale from zero and load weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import httpx


def wait_ready(
    urls: Sequence[str], seconds: float, *, should_stop: Callable[[], bool] = lambda: False, pause_s: float = 1.0
) -> bool:
    """Poll ``/readyz`` of each URL. Return True once one is ready, or False once ``should_stop`` returns True.

    Raises:
        TimeoutError: No service was ready within ``seconds``; the message contains the last response of each.
    """
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=5, trust_env=False) as http:
        while True:
            responses = []
            for url in urls:
                ready, response = _poll(http, url)
                if ready:
                    return True
                responses.append(f"{url}: {response}")
            if should_stop():
                return False
            if time.monotonic() + pause_s > deadline:
                found = "; ".join(responses)
                raise TimeoutError(f"no reward service was ready within {seconds:.0f} s; last responses: {found}")
            time.sleep(pause_s)


def _poll(http: httpx.Client, url: str) -> tuple[bool, str]:
    try:
        response = http.get(f"{url.rstrip('/')}/readyz")
    except httpx.HTTPError as error:
        return False, f"{type(error).__name__}: {error}"
    return response.status_code == 200, f"{response.status_code} {response.text[:200]}"
