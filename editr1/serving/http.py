"""The HTTP client of everything that talks to a reward server: requests for scores, readiness and the identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import httpx

from editr1.config.proxies import proxy_for

_DEFAULT_LIMITS: Final = httpx.Limits()


def reward_http_client(
    urls: Iterable[str], *, timeout: float = 5.0, limits: httpx.Limits = _DEFAULT_LIMITS
) -> httpx.Client:
    """Return a client for the reward servers at ``urls``. Each of them is reached through the proxy of :func:`proxy_for`, if any.

    Certificates are checked against ``SSL_CERT_FILE``, if it is set, and otherwise against those of the package certifi.
    ``timeout`` is in seconds.

    Raises:
        ConfigError: The proxy in the environment is neither an HTTP nor an HTTPS proxy.
    """
    context = httpx.create_ssl_context()
    proxies = {f"{parts.scheme}://{parts.netloc}": proxy_for(url) for url in urls if (parts := urlsplit(url))}
    mounts = {
        host: httpx.HTTPTransport(verify=context, proxy=proxy, limits=limits)
        for host, proxy in proxies.items()
        if proxy is not None
    }
    # What the environment says about proxies is in ``mounts``; httpx does not know networks in no_proxy.
    return httpx.Client(verify=context, trust_env=False, timeout=timeout, limits=limits, mounts=mounts)
