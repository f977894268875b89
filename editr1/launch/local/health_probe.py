"""Probe a reward server on this machine, as the kubelet probes the pods of a reward Deployment on a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from editr1.durations import format_duration

PERIOD_SECONDS = 10.0
"""Interval in seconds between two probes, as in the liveness probe of the chart ``reward``."""
TIMEOUT_SECONDS = 5.0
"""Time in seconds within which the server must respond to a probe, as in the chart."""
LIVENESS_FAILURES = 6
"""Number of consecutive failed probes of /healthz after which the server is killed, as in the chart."""
UNREADY_SECONDS = 300.0
"""Time in seconds after which a server is killed if it responds, but is not ready for requests. Kubernetes sends no
requests to such a pod. On one machine, there is no other replica that could process them.
"""


@dataclass(frozen=True)
class Health:
    """Health of a reward server that has been ready."""

    problem: str = ""
    """Reason why the server cannot score at the moment; empty if it can."""
    must_restart: bool = False
    """Whether the problem has lasted so long that the server must be killed and restarted."""


Ask = Callable[[str], str]
"""Function that sends a probe to an address, and returns the reason of a failure or an empty string."""


def ask(address: str) -> str:
    """Send a probe. Returns an empty string if the status of the response is from 200 to 399, as for the kubelet."""
    try:
        response = httpx.get(address, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.TimeoutException:
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return "" if response.status_code < 400 else f"{response.status_code} {' '.join(response.text.split())[:200]}"


class HealthProbe:
    """Probe of one server in a daemon thread, so that a hanging server does not delay its launcher."""

    def __init__(self, url: str, send: Ask = ask, clock: Callable[[], float] = time.monotonic) -> None:
        self.health = Health()
        self._url, self._send, self._clock = url.rstrip("/"), send, clock
        self._failed = 0
        self._unready_since: float | None = None
        self._stop = threading.Event()

    def start(self) -> HealthProbe:
        """Start to send probes periodically."""
        threading.Thread(target=self._run, name="editr1-health-probe", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop sending probes."""
        self._stop.set()

    def probe(self) -> None:
        """Send one probe and update :attr:`health`."""
        if dead := self._send(f"{self._url}/healthz"):
            self._failed += 1
            limit = format_duration(LIVENESS_FAILURES * PERIOD_SECONDS)
            problem = f"the reward server at {self._url} does not answer its liveness probe ({dead}); it is killed after {limit}"
            self.health = Health(problem, self._failed >= LIVENESS_FAILURES)
            return
        self._failed = 0
        unready = self._send(f"{self._url}/readyz")
        if not unready:
            self._unready_since, self.health = None, Health()
            return
        now = self._clock()
        self._unready_since = now if self._unready_since is None else self._unready_since
        late = now - self._unready_since >= UNREADY_SECONDS
        limit = format_duration(UNREADY_SECONDS)
        self.health = Health(
            f"the reward server at {self._url} is not ready ({unready}); it is killed after {limit}", late
        )

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self.probe()
