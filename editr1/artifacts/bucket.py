"""Check within a few seconds, and without writing anything, that the bucket of an S3 store can be read."""

from __future__ import annotations

import threading

from editr1.artifacts.errors import StoreUnreachable
from editr1.artifacts.s3 import S3Objects
from editr1.config.store import StoreConfig

PROBE_SECONDS = 5.0
"""Time in seconds in which the server must respond."""


def probe_bucket(config: StoreConfig, seconds: float = PROBE_SECONDS) -> None:
    """List the first objects of an S3 store once, without retries.

    Raises:
        AccessDenied: there are no credentials, or the server rejects them.
        ConfigError, StoreMisconfigured: the bucket does not exist, or a setting such as the endpoint is wrong.
        StoreError: the host name of the server is unknown.
        StoreUnreachable: the server did not respond within ``seconds``, or its response is invalid.
    """
    objects = S3Objects(config)
    failures: list[Exception] = []

    def look() -> None:
        try:
            next(objects.keys(""), None)
        except Exception as error:
            failures.append(error)

    # The time limits of the HTTP client apply to single packets, so only a thread ends a slow response in time.
    thread = threading.Thread(target=look, name="editr1-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise StoreUnreachable(f"{objects.url}: the server did not respond within {seconds:g} s")
    if failures:
        raise failures[0]
