"""Decide whether requests to a URL go through a proxy from the environment.

All clients whose servers may be on other machines use this function.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from editr1.config.loader import ConfigError

_CLUSTER_NAMES: Final = (".svc", ".cluster.local")


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy for requests to ``url``, or None if the server is reached directly.

    The proxy is read from ``http_proxy``, ``https_proxy`` and ``all_proxy`` (or the same names in upper case). Hosts
    in ``no_proxy``, which may contain networks such as 10.0.0.0/8, are reached directly. Servers on this machine
    (``localhost`` and loopback addresses) are also reached directly, because a proxy on another machine cannot reach
    them. So are services in a Kubernetes cluster (names that end in ``.svc`` or ``.cluster.local``), because only the
    cluster can resolve their names.

    Raises:
        ConfigError: The proxy is neither an HTTP nor an HTTPS proxy.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if is_loopback(host) or host.lower().endswith(_CLUSTER_NAMES):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_excluded(host, parts.port, proxies.get("no", "")):
        return None
    scheme, separator, _ = proxy.partition("://")
    if not separator:
        return f"http://{proxy}"
    if scheme.lower() not in ("http", "https"):
        raise ConfigError(
            f"the proxy in the environment for {parts.scheme}://{parts.netloc.rpartition('@')[2]} is of type {scheme!r}; set "
            f"{parts.scheme}_proxy to an http or https proxy, or add the host to no_proxy"
        )
    return proxy


def is_loopback(host: str) -> bool:
    """Return True if ``host`` (a name or an address without brackets) is this machine's loopback interface."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_excluded(host: str, port: int | None, no_proxy: str) -> bool:
    if proxy_bypass(host if port is None else f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:  # The entry is a host name.
            continue
    return False
