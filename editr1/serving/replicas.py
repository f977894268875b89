"""The replicas of a reward service from the viewpoint of one client: addresses, items in flight, and pauses after failures."""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from editr1.config.proxies import proxy_for

Resolve = Callable[[str, int], Sequence[str]]
"""Function that resolves a host name and a port to IP addresses. Raises OSError on failure."""

_MAX_PAUSE_S = 8.0


@dataclass(eq=False)
class Replica:
    """A replica of the reward service at one address."""

    url: str
    host: str
    """Value of the ``Host`` header of requests to this replica."""
    tls_name: str | None
    """Host name that the server's certificate must contain. None if it is in the URL, or the URL does not use TLS."""
    in_flight: int = 0
    """Number of items that this client has sent to the replica and that have no result yet."""
    failures: int = 0
    """Number of failures since the last success."""
    available_at: float = 0.0
    """Time before which no request is sent to the replica, on the clock of ``time.monotonic``."""


def system_resolve(host: str, port: int) -> list[str]:
    """Resolve ``host`` to all its IP addresses with the resolver of the operating system. Raise OSError on failure."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Replicas:
    """All replicas behind the given URLs. One of them is chosen for each request. Thread-safe.

    The replica with the fewest items in flight is chosen. A URL that is reached through a proxy counts as one replica.
    Host names are resolved again every ``resolve_interval_seconds``; if that fails, the known addresses stay in use. After
    a failure, no requests are sent to a replica for about ``backoff_seconds``. The pause doubles with each further failure,
    up to 8 s.

    Raises:
        ValueError: There is no URL, or a URL is not of the form http://HOST:PORT or https://HOST:PORT.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        resolve_interval_seconds: float,
        backoff_seconds: float,
        resolve: Resolve = system_resolve,
    ) -> None:
        if not urls:
            raise ValueError("urls: the list is empty; give the address of at least one reward server")
        self._urls = [_validated(url) for url in urls]
        self._resolve_interval_s = resolve_interval_seconds
        self._backoff_s = backoff_seconds
        self._resolve = resolve
        self._lock = threading.Lock()
        self._resolving = threading.Lock()
        self._resolved_at = float("-inf")
        self.resolve_error = ""
        """Error message of the last failed host name resolution; empty if all host names were resolved."""
        self._replicas: dict[str, Replica] = {}

    def current(self) -> list[Replica]:
        """Return the known replicas. Resolve the host names again if ``resolve_interval_seconds`` have passed."""
        # Only one thread resolves host names; the others use the known replicas, or wait if there are none.
        if self._is_stale() and self._resolving.acquire(blocking=not self._replicas):
            try:
                if self._is_stale():
                    self._update()
            finally:
                self._resolving.release()
        with self._lock:
            return list(self._replicas.values())

    def acquire(self, items: int, tried: Collection[Replica]) -> Replica | float:
        """Choose a replica and add ``items`` to its items in flight.

        If no replica is available, return the number of seconds until one may be available. Replicas that are not in
        ``tried`` are preferred, and among these, replicas with the fewest items in flight. Ties are broken at random.
        """
        known = self.current()
        now = time.monotonic()
        with self._lock:
            available = [replica for replica in known if replica.available_at <= now]
            if not available:
                return min((replica.available_at - now for replica in known), default=self._backoff_s)
            untried = [replica for replica in available if replica not in tried]
            chosen = min(untried or available, key=lambda replica: (replica.in_flight, random.random()))
            chosen.in_flight += items
            return chosen

    def release(self, replica: Replica, items: int) -> None:
        """Subtract ``items`` from the items in flight of ``replica``."""
        with self._lock:
            replica.in_flight -= items

    def all_failed(self) -> bool:
        """Return True if the last request to every known replica failed, or no replica is known."""
        with self._lock:
            return all(replica.failures for replica in self._replicas.values())

    def record_success(self, replica: Replica) -> None:
        """Record a success of ``replica``, which resets its number of failures."""
        with self._lock:
            replica.failures = 0

    def record_failure(self, replica: Replica) -> None:
        """Record a failure of ``replica``, and pause requests to it.

        The pause doubles with each consecutive failure.
        """
        with self._lock:
            replica.failures += 1
            pause = min(_MAX_PAUSE_S, self._backoff_s * 2 ** min(replica.failures - 1, 30))
            replica.available_at = time.monotonic() + pause * random.uniform(0.75, 1.25)

    def record_busy(self, replica: Replica, retry_after_s: float) -> None:
        """Pause requests to ``replica`` for the ``Retry-After`` time of its 429 response."""
        with self._lock:
            replica.available_at = max(replica.available_at, time.monotonic() + retry_after_s)

    def _is_stale(self) -> bool:
        return time.monotonic() - self._resolved_at >= self._resolve_interval_s

    def _update(self) -> None:
        found: dict[str, Replica] = {}
        failed = ""
        for url in self._urls:
            try:
                for replica in self._replicas_of(url):
                    found.setdefault(replica.url, replica)
            except OSError as error:
                failed = failed or f"the host name {urlsplit(url).hostname!r} cannot be resolved: {error}"
        self.resolve_error = failed
        with self._lock:
            for url, replica in self._replicas.items():
                if url in found or failed:
                    found[url] = replica
            self._replicas = found
            self._resolved_at = time.monotonic() if found else float("-inf")

    def _replicas_of(self, url: str) -> list[Replica]:
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
        port = parts.port or (443 if scheme == "https" else 80)
        path = parts.path.rstrip("/")
        # A proxy resolves the host name itself, and chooses one of its addresses.
        if _is_ip_address(host) or proxy_for(url) is not None:
            return [Replica(url=f"{scheme}://{parts.netloc}{path}", host=parts.netloc, tls_name=None)]
        replicas = []
        for address in self._resolve(host, port):
            shown = f"[{address}]" if ":" in address else address
            tls_name = host if scheme == "https" else None
            replicas.append(Replica(url=f"{scheme}://{shown}:{port}{path}", host=parts.netloc, tls_name=tls_name))
        return replicas


def _validated(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
    if parts.username or parts.query or parts.fragment:
        raise ValueError(f"url {url!r}: a user, a query or a fragment is not allowed; remove it")
    return url


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
