"""The replicas of a reward service as a client sees them: which addresses there are, how busy, which to leave alone."""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

Resolve = Callable[[str, int], Sequence[str]]
"""Host name and port to IP addresses; raises OSError when there is no answer."""

_LONGEST_PAUSE_S = 8.0


@dataclass(eq=False)
class Replica:
    """One address. ``host`` is the Host header to send, ``in_flight`` counts this client's items there."""

    url: str
    host: str
    tls_name: str | None
    in_flight: int = 0
    failures: int = 0
    free_at: float = 0.0


def system_resolve(host: str, port: int) -> list[str]:
    """All addresses that the system's resolver gives for ``host``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Replicas:
    """Least in flight first, over every address behind the given URLs. Thread-safe.

    Host names are looked up again every ``resolve_interval_seconds``; when that fails the addresses known before stay. A replica that
    failed is left alone for ``backoff_seconds``, doubled with each further failure.
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
            raise ValueError("urls: at least one address of a reward server is needed")
        self._urls = [_checked(url) for url in urls]
        self._resolve_s = resolve_interval_seconds
        self._backoff_s = backoff_seconds
        self._resolve = resolve
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._looked_at = float("-inf")
        self._replicas: dict[str, Replica] = {}

    def current(self) -> list[Replica]:
        """The replicas known now, looked up again when that is due."""
        if time.monotonic() - self._looked_at >= self._resolve_s:
            # Only one thread looks; the others go on with what is known, unless nothing is.
            with_wait = not self._replicas
            if self._looking.acquire(blocking=with_wait):
                try:
                    if time.monotonic() - self._looked_at >= self._resolve_s:
                        self._look()
                finally:
                    self._looking.release()
        with self._lock:
            return list(self._replicas.values())

    def take(self, items: int, tried: Collection[Replica]) -> Replica | float:
        """A replica, with ``items`` added to its load, or the seconds until one may be asked.

        Replicas not in ``tried`` come first, then those with the least in flight; ties are broken at random.
        """
        known = self.current()
        now = time.monotonic()
        with self._lock:
            free = [replica for replica in known if replica.free_at <= now]
            if not free:
                return min((replica.free_at - now for replica in known), default=self._backoff_s)
            fresh = [replica for replica in free if replica not in tried]
            chosen = min(fresh or free, key=lambda replica: (replica.in_flight, random.random()))
            chosen.in_flight += items
            return chosen

    def away(self) -> bool:
        """Whether no replica is known that answered when it was asked last."""
        with self._lock:
            return all(replica.failures for replica in self._replicas.values())

    def give_back(self, replica: Replica, items: int) -> None:
        """Take ``items`` off its load."""
        with self._lock:
            replica.in_flight -= items

    def succeeded(self, replica: Replica) -> None:
        """It answered: forget its failures."""
        with self._lock:
            replica.failures = 0

    def failed(self, replica: Replica) -> None:
        """It did not answer: leave it alone for a while, longer each time."""
        with self._lock:
            replica.failures += 1
            pause = min(_LONGEST_PAUSE_S, self._backoff_s * 2 ** min(replica.failures - 1, 30))
            replica.free_at = time.monotonic() + pause * random.uniform(0.75, 1.25)

    def busy(self, replica: Replica, retry_after_s: float) -> None:
        """It answered 429: leave it alone for as long as it asked."""
        with self._lock:
            replica.free_at = max(replica.free_at, time.monotonic() + retry_after_s)

    def _look(self) -> None:
        found: dict[str, Replica] = {}
        complete = True
        for url in self._urls:
            try:
                for replica in self._addresses(url):
                    found.setdefault(replica.url, replica)
            except OSError:
                complete = False
        with self._lock:
            for url, replica in self._replicas.items():
                if url in found or not complete:
                    found[url] = replica
            self._replicas = found
            self._looked_at = time.monotonic() if found else float("-inf")

    def _addresses(self, url: str) -> list[Replica]:
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
        port = parts.port or (443 if scheme == "https" else 80)
        path = parts.path.rstrip("/")
        if _is_address(host):
            return [Replica(url=f"{scheme}://{parts.netloc}{path}", host=parts.netloc, tls_name=None)]
        replicas = []
        for address in self._resolve(host, port):
            shown = f"[{address}]" if ":" in address else address
            tls_name = host if scheme == "https" else None
            replicas.append(Replica(url=f"{scheme}://{shown}:{port}{path}", host=parts.netloc, tls_name=tls_name))
        return replicas


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url {url!r}: expected http://HOST:PORT or https://HOST:PORT")
    if parts.username or parts.query or parts.fragment:
        raise ValueError(f"url {url!r}: user, query and fragment are not allowed")
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
