"""Read and cache the Kubernetes events of each namespace."""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from dataclasses import dataclass, field

from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.parse import event_view
from editr1.launch.kubernetes.views import EventView

MAX_TIME_FRACTION = 0.05
"""Maximum fraction of time that is spent on listing the events of a namespace. For example, if a request takes 1 s,
its list is used for 20 s, because 1 s is 5 % of 20 s. The limit does not apply to callers that request a new list.
"""
EXPIRY_SECONDS = 600.0
"""Seconds after which the list of a namespace is removed from the cache."""


@dataclass
class _EventList:
    lock: threading.Lock = field(default_factory=threading.Lock)
    read_at: float = float("-inf")
    seconds: float = 0.0
    """Duration of the last list request in seconds."""
    events: tuple[EventView, ...] = ()


class NamespaceEvents:
    """Thread-safe cache of the list of events of each namespace.

    For every list request, the API server scans all events of the namespace, even if a selector matches only a few.
    All runs of a namespace therefore share one list. While one thread requests the list, other threads that need it
    wait.
    """

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._lists: dict[str, _EventList] = {}

    def of(self, namespace: str, names: Container[str], age_s: float) -> tuple[EventView, ...]:
        """Return the events of the given objects, oldest first.

        Args:
            namespace: Namespace of the objects.
            names: Names of the objects.
            age_s: Maximum age in seconds of a cached list. If listing takes long, an older list may be used
                (:data:`MAX_TIME_FRACTION`). 0 always requests a new list.

        Raises:
            RequestRefused, ClusterUnreachable: the events cannot be listed.
        """
        called = time.monotonic()
        with self._lock:
            known = self._lists.setdefault(namespace, _EventList())
        with known.lock:
            max_age = max(age_s, known.seconds / MAX_TIME_FRACTION) if age_s else 0.0
            if known.read_at < called - max_age:
                began = time.monotonic()
                found = self._client.find("Event", namespace)
                known.events = tuple(sorted((event_view(item) for item in found), key=lambda event: event.t))
                known.read_at, known.seconds = began, time.monotonic() - began
                self._drop_expired(began)
            return tuple(event for event in known.events if event.object in names)

    def _drop_expired(self, now: float) -> None:
        with self._lock:
            for name in [name for name, item in self._lists.items() if now - item.read_at > EXPIRY_SECONDS]:
                del self._lists[name]
