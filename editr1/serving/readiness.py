"""Wait until a reward service answers: one that scales from nothing needs minutes to load its weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import httpx


def wait_ready(
    urls: Sequence[str], seconds: float, *, should_stop: Callable[[], bool] = lambda: False, pause_s: float = 1.0
) -> bool:
    """Whether one of the addresses said ready. False when ``should_stop`` said yes first.

    Raises:
        TimeoutError: none was ready after ``seconds``; the message has the last answer of each.
    """
    end = time.monotonic() + seconds
    with httpx.Client(timeout=5, trust_env=False) as http:
        while True:
            answers = []
            for url in urls:
                try:
                    answer = http.get(f"{url.rstrip('/')}/readyz")
                except httpx.HTTPError as error:
                    answers.append(f"{url}: {type(error).__name__}: {error}")
                    continue
                if answer.status_code == 200:
                    return True
                answers.append(f"{url}: {answer.status_code} {answer.text[:200]}")
            if should_stop():
                return False
            if time.monotonic() + pause_s > end:
                raise TimeoutError(f"no reward service was ready after {seconds:.0f} s; {'; '.join(answers)}")
            time.sleep(pause_s)
