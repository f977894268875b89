"""Send one request to one replica of a reward service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from editr1.config.serve import ClientConfig
from editr1.serving.http import reward_http_client
from editr1.serving.identity import INFO_PATH, gives_verdicts
from editr1.serving.replicas import Replica
from editr1.telemetry import inject

_INFO_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class Reply:
    """The response of a replica."""

    status: int
    content: bytes
    retry_after_s: float
    """Seconds to wait before another request, from the header ``Retry-After``; 1 if it is missing."""


class RewardTransport:
    """HTTP connections to the replicas of a reward service. Thread-safe.

    Raises:
        ConfigError: The proxy in the environment is neither an HTTP nor an HTTPS proxy.
    """

    def __init__(self, urls: Sequence[str], config: ClientConfig) -> None:
        self._connect_timeout_s = config.connect_timeout_seconds
        self._http = reward_http_client(
            urls,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=config.concurrency, keepalive_expiry=30
            ),
        )
        self._scores_only: dict[str, bool] = {}
        """For the URL of each replica that was asked, whether it declares that its scores have no verdicts."""

    def post(self, replica: Replica, body: bytes, timeout_seconds: float) -> Reply:
        """Send the JSON ``body`` to ``POST /v1/score`` and return the response, which must be complete within the timeout.

        Raises:
            httpx.HTTPError: There was no complete response.
        """
        headers = {"Content-Type": "application/json", "Host": replica.host}
        inject(headers)
        with self._http.stream(
            "POST",
            f"{replica.url}/v1/score",
            content=body,
            headers=headers,
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, self._connect_timeout_s)),
            extensions=_extensions(replica),
        ) as response:
            content = _read_body(response, time.monotonic() + timeout_seconds)
        return Reply(response.status_code, content, _retry_after(response))

    def declares_scores_only(self, replica: Replica) -> bool:
        """Return True if the replica declares in ``/v1/info`` that its scores have no verdicts. It is asked once."""
        if replica.url not in self._scores_only:
            try:
                response = self._http.get(
                    f"{replica.url}{INFO_PATH}",
                    headers={"Host": replica.host},
                    timeout=_INFO_TIMEOUT_S,
                    extensions=_extensions(replica),
                )
            except httpx.HTTPError:
                return False
            if response.status_code != 200:
                return False
            self._scores_only[replica.url] = not gives_verdicts(response.content)
        return self._scores_only[replica.url]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _extensions(replica: Replica) -> dict[str, str] | None:
    return {"sni_hostname": replica.tls_name} if replica.tls_name else None


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(60.0, max(0.05, float(response.headers.get("Retry-After", "1"))))
    except ValueError:
        return 1.0


def _read_body(response: httpx.Response, deadline: float) -> bytes:
    """Read the body of ``response``. Raise ReadTimeout if it is not complete by ``deadline``.

    The timeout of httpx is not sufficient, because it applies to each read and not to the whole body.
    """
    chunks = []
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the response was not complete within the timeout")
    return b"".join(chunks)
