"""What the cluster said of each namespace's objects: one list for all its runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Container
from dataclasses import dataclass, field

from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.parse import event_view
from editr1.launch.kubernetes.views import EventView

SHARE_OF_TIME = 0.05
"""Most of the time that may go into listing, where an older answer will do."""
FORGOTTEN_SECONDS = 600.0


@dataclass
class _Listed:
    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    took: float = 0.0
    events: tuple[EventView, ...] = ()


class NamespaceEvents:
    """Events by namespace, safe for several threads.

    The API server scans all events of a namespace for any question about them, however few it asks for. So each list
    serves every run of the namespace, and those who ask while it is under way wait for it.
    """

    def __init__(self, client: KubernetesClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: dict[str, _Listed] = {}

    def of(self, namespace: str, names: Container[str], age_s: float) -> tuple[EventView, ...]:
        """Events of the objects ``names``, oldest first, as listed at most ``age_s`` seconds ago.

        Where ``age_s`` is not 0, a namespace whose list takes long is listed more seldom (:data:`SHARE_OF_TIME`).
        Raises RequestRefused, ClusterUnreachable.
        """
        asked = time.monotonic()
        with self._lock:
            known = self._known.setdefault(namespace, _Listed())
        with known.lock:
            limit = max(age_s, known.took / SHARE_OF_TIME) if age_s else 0.0
            if known.at < asked - limit:
                began = time.monotonic()
                found = self._client.find("Event", namespace)
                known.events = tuple(sorted((event_view(item) for item in found), key=lambda event: event.t))
                known.at, known.took = began, time.monotonic() - began
                self._forget(began)
            return tuple(event for event in known.events if event.object in names)

    def _forget(self, now: float) -> None:
        with self._lock:
            for name in [name for name, item in self._known.items() if now - item.at > FORGOTTEN_SECONDS]:
                del self._known[name]
