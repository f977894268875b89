"""Check whether a reward service keeps to the API, so that this package can use its scores.

The checks send a few requests with small images and apply the rules that the client applies to every response. They are meant for authors
of other reward services.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx
from PIL import Image

from editr1.config.loader import ConfigError
from editr1.config.serve import ClientConfig
from editr1.data.images import encode_png
from editr1.data.types import EncodedImage, Scored, ScoreFailure, ScoreItem
from editr1.serving.answers import InvalidResponse, read_response, score_fault
from editr1.serving.api import ScoreResponse, encode_request
from editr1.serving.golden import default_golden
from editr1.serving.identity import RewardUnreachable, ask_identity
from editr1.serving.readiness import wait_ready
from editr1.serving.replicas import Replica, Replicas
from editr1.serving.transport import RewardTransport


class Finding(NamedTuple):
    """Result of one check."""

    check: str
    ok: bool
    detail: str


def check_service(
    url: str, *, items: Sequence[ScoreItem] | None = None, digest: str | None = None, seconds: float = 60.0
) -> Iterator[Finding]:
    """Yield the result of each check of the reward service at ``url``.

    Args:
        url: Base URL of the service.
        items: Edits to score, whose edited images differ; by default, three generated ones.
        digest: Digest of the model, for a service that does not report it.
        seconds: Time limit of each request in seconds.

    Raises:
        ConfigError: The URL is not valid, or the proxy in the environment is not an HTTP proxy.
    """
    edits = list(items) if items else _default_items()
    try:
        (replica,) = Replicas([url], resolve_interval_seconds=60.0, backoff_seconds=1.0).current()[:1]
    except ValueError as error:
        yield Finding("address", False, f"no address is known for {url!r}: {error}")
        return
    transport = RewardTransport([url], ClientConfig())
    try:
        yield _readiness(url)
        identity = _identity(url, digest)
        yield identity
        yield from _Checks(transport, replica, identity.detail if identity.ok else None, seconds).run(edits)
    finally:
        transport.close()


class _Checks:
    """The checks of ``POST /v1/score``."""

    def __init__(self, transport: RewardTransport, replica: Replica, model: str | None, seconds: float) -> None:
        self._transport, self._replica = transport, replica
        self._model, self._seconds = model, seconds

    def run(self, items: list[ScoreItem]) -> Iterator[Finding]:
        """Yield the findings about requests with ``items``."""
        first = self._ask("names the request, the model and every edited image", items)
        yield first[0]
        if first[1] is None:
            return
        scored = [result for result in first[1].results if isinstance(result, Scored)]
        failed = [result for result in first[1].results if isinstance(result, ScoreFailure)]
        reason = f"; the first failure: {failed[0].cause}: {failed[0].detail[:200]}" if failed else ""
        yield Finding("scores the edits", bool(scored), f"{len(scored)} of {len(items)} edits have a score{reason}")
        yield self._scores_fit(first[1], items, 1)
        yield self._ask("handles the same edits in another order", items[::-1])[0]
        yield self._ask("handles the same edit twice in one request", [items[0], items[-1], items[0]])[0]
        several, response = self._ask("handles several traces per edit", items, num_traces=2)
        yield several
        if response is not None:
            yield self._scores_fit(response, items, 2)
        yield self._damaged_item(items)

    def _ask(self, check: str, items: Sequence[ScoreItem], num_traces: int = 1) -> tuple[Finding, ScoreResponse | None]:
        """Send ``items``, and return the finding and the response if it belongs to the request."""
        request_id = uuid.uuid4().hex
        body = encode_request(items, request_id=request_id, num_traces=num_traces, deadline_ms=int(self._seconds * 950))
        start = time.monotonic()
        status, content = self._post(body)
        if status != 200:
            words = content[:300].decode(errors="replace")
            return Finding(check, False, f"the status is {status}, not 200: {words}"), None
        try:
            response = read_response(content, items, request_id)
        except InvalidResponse as error:
            return Finding(check, False, str(error)), None
        if self._model is not None and response.model != self._model:
            return Finding(check, False, f"the response is from model {response.model}, not from {self._model}"), None
        seconds = time.monotonic() - start
        return Finding(check, True, f"{len(items)} edits, {num_traces} traces per edit, {seconds:.1f} s"), response

    def _scores_fit(self, response: ScoreResponse, items: Sequence[ScoreItem], num_traces: int) -> Finding:
        check = "scores agree with verdicts and traces"
        scores_only = self._transport.declares_scores_only(self._replica)
        for index, (item, result) in enumerate(zip(items, response.results, strict=True)):
            if isinstance(result, ScoreFailure):
                continue
            if fault := score_fault(result, item, num_traces, scores_only=scores_only):
                return Finding(check, False, f"results.{index}: {fault}")
        return Finding(
            check, True, "declared as scores without verdicts" if scores_only else f"{num_traces} traces per edit"
        )

    def _damaged_item(self, items: list[ScoreItem]) -> Finding:
        """Send an item whose edited image is no image. It must fail alone, or the request must be refused."""
        check = "gives no score for a file that is not an image"
        body: dict[str, Any] = json.loads(encode_request(items[:2], request_id=uuid.uuid4().hex))
        body["items"][1]["edited"] = {"data": "bm8gaW1hZ2U="}
        status, content = self._post(json.dumps(body).encode())
        if 400 <= status < 500:
            return Finding(check, True, f"the request is refused with status {status}")
        if status != 200:
            return Finding(check, False, f"the status is {status}; return status 422, or a failure for this item")
        try:
            results = json.loads(content)["results"]
            wrong = results[1].get("ok") is not False or len(results) != 2
        except (ValueError, LookupError, TypeError, AttributeError):
            return Finding(check, False, "the response is not a score response with two results")
        return Finding(check, not wrong, "it has a score" if wrong else "only this item fails")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the response. Without a response, the status is 0 and the body has the reason."""
        try:
            reply = self._transport.post(self._replica, body, self._seconds)
        except httpx.HTTPError as error:
            return 0, f"no response: {type(error).__name__}: {error}".encode()
        return reply.status, reply.content


def _readiness(url: str) -> Finding:
    try:
        wait_ready([url], 0.0)
    except (ConfigError, TimeoutError) as error:
        return Finding("/readyz returns status 200", False, str(error))
    return Finding("/readyz returns status 200", True, "ready")


def _identity(url: str, digest: str | None) -> Finding:
    check = "/v1/info reports the digest of the model"
    if digest is not None:
        return Finding(check, True, digest)
    try:
        return Finding(check, True, ask_identity([url], 0.0).model)
    except (ConfigError, RewardUnreachable) as error:
        return Finding(check, False, str(error))


def _default_items() -> list[ScoreItem]:
    """Return three edits of one source image that differ in their edited images."""
    (item,) = default_golden()
    colours = ("white", "grey", "black")
    images = (EncodedImage(data=encode_png(Image.new("RGB", (64, 64), colour))) for colour in colours)
    return [item.model_copy(update={"edited": image}) for image in images]
