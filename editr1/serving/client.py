"""A client for the reward service.

It balances load across replicas, retries on other replicas and enforces deadlines.
"""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

import httpx
from pydantic import ValidationError

from editr1.config.serve import ClientConfig
from editr1.data.types import FailureCause, Scored, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.serving.answers import InvalidResponse, checked_results, read_response
from editr1.serving.api import ErrorResponse, encode_request
from editr1.serving.model_of_run import ModelOfRun
from editr1.serving.pending import PendingRequest, join_futures
from editr1.serving.replicas import Replica, Replicas, Resolve, system_resolve
from editr1.serving.transport import Reply, RewardTransport
from editr1.telemetry import Span, span

log = logging.getLogger(__name__)

_DEFAULT: Final = ClientConfig()
_WARN_INTERVAL_S: Final = 60.0
_MAY_BE_ITEMS: Final = (400, 413, 422)
"""HTTP statuses that can mean that an item in the request is invalid. Every other status from 400 to 499 means that the service
or its configuration is wrong."""
_TRANSIENT_4XX: Final = (408, 425)


class RewardClient:
    """Client that scores edits with one or several reward servers. Thread-safe. Use it as a context manager, or call ``close``.

    ``urls`` are base URLs. If a URL contains a host name, each IP address of that host counts as one replica. All
    scores come from one model: the model with ``expected_digest`` or, if that is None, the model in the first
    response.

    If no replica is reachable, a request waits for one until its deadline. It stops waiting early if ``should_stop``
    returns True, if the client is closed, or if another call reached its deadline during the same outage.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        config: ClientConfig = _DEFAULT,
        expected_digest: str | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._config = config
        self._should_stop = should_stop
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        """Event that is set when a call reaches its deadline while no replica is reachable.

        It is cleared when a replica responds.
        """
        self._warned_at = self._refused_at = float("-inf")
        self._model = ModelOfRun(expected_digest)
        self._replicas = Replicas(
            urls,
            resolve_interval_seconds=config.resolve_interval_seconds,
            backoff_seconds=config.backoff_seconds,
            resolve=resolve,
        )
        self._transport = RewardTransport(urls, config)
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="editr1-reward")

    def score(
        self,
        items: Sequence[ScoreItem],
        num_traces: int = 1,
        *,
        temperature: float | None = None,
        seed: int | None = None,
        deadline_seconds: float | None = None,
    ) -> list[ScoreOutcome]:
        """Score ``items`` and return one outcome per item, in order.

        An item that cannot be scored gets a ``ScoreFailure``; no exception is raised for it.

        Args:
            items: The edits to score.
            num_traces: Number of traces per item; the score is the mean over the traces that can be parsed.
            temperature: Sampling temperature. None means greedy decoding for one trace, and the server's default
                temperature for several traces.
            seed: Seed for sampling the traces.
            deadline_seconds: Time limit of the whole call, including retries; the default is ``config.deadline_seconds``.

        Raises:
            ModelMismatch: The replicas serve different models, or a model other than the expected one.
            ValueError: ``num_traces`` is below 1, or several traces are requested at temperature 0.
        """
        return self.submit(
            items, num_traces, temperature=temperature, seed=seed, deadline_seconds=deadline_seconds
        ).result()

    def submit(
        self,
        items: Sequence[ScoreItem],
        num_traces: int = 1,
        *,
        temperature: float | None = None,
        seed: int | None = None,
        deadline_seconds: float | None = None,
    ) -> Future[list[ScoreOutcome]]:
        """Start :meth:`score` in the background and return a future of the outcomes."""
        if num_traces < 1:
            raise ValueError(f"num_traces is {num_traces}, but must be at least 1")
        if num_traces > 1 and temperature == 0:
            raise ValueError("num_traces > 1 requires a temperature above 0, because greedy traces would be identical")
        total = self._config.deadline_seconds if deadline_seconds is None else deadline_seconds
        deadline = time.monotonic() + total
        requests = [PendingRequest(part, num_traces, temperature, seed, deadline) for part in self._split(items)]
        futures = [self._pool.submit(contextvars.copy_context().run, self._score, request) for request in requests]
        return join_futures(futures)

    def model_digest(self) -> str:
        """Return the digest of the model that computes the scores.

        Raises:
            LookupError: No response has arrived yet, and ``expected_digest`` was not given.
        """
        if self._model.digest is None:
            raise LookupError(
                "the digest of the model is unknown until the first response arrives; score an item first"
            )
        return self._model.digest

    def close(self) -> None:
        """Wait for responses in flight, then close the connections. Requests that are waiting for a replica fail."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _split(self, items: Sequence[ScoreItem]) -> Iterator[list[ScoreItem]]:
        """Split ``items`` into requests within the limits on items and bytes. An image that several items share counts once."""
        part: list[ScoreItem] = []
        size = 0
        seen: set[int] = set()
        same_image: dict[str, ScoreItem] = {}
        for item in items:
            new = sum(len(image.data) for image in (item.source, item.edited) if id(image) not in seen)
            full = len(part) >= self._config.max_request_items or size + new > self._config.max_request_bytes
            # A result names its edited image only, so that items that differ in the rest are sent in separate requests.
            if part and (full or same_image.get(item.edited.sha256, item) != item):
                yield part
                part, size, seen, same_image = [], 0, set(), {}
                new = len(item.source.data) + len(item.edited.data)
            part.append(item)
            same_image[item.edited.sha256] = item
            size += new
            seen |= {id(item.source), id(item.edited)}
        if part:
            yield part

    def _score(self, request: PendingRequest) -> list[ScoreOutcome]:
        with span(Span.REWARD_REQUEST, items=len(request.items), traces=request.num_traces) as current:
            while request.pending and request.attempts < self._config.max_attempts:
                if not self._try(request):
                    break
            outcomes = request.outcomes()
            current.set_attribute("attempts", request.attempts)
            current.set_attribute("failed", sum(1 for outcome in outcomes if not outcome.ok))
            return outcomes

    def _try(self, request: PendingRequest) -> bool:
        """Send the request to an available replica, or wait for one. Return False if no further attempt is allowed."""
        left = request.deadline - time.monotonic()
        if left <= 0:
            unreachable = request.last_cause is FailureCause.UNREACHABLE
            if unreachable and self._replicas.all_failed():
                self._abandoned.set()
            cause = FailureCause.UNREACHABLE if unreachable else FailureCause.DEADLINE
            request.fail_pending(
                cause, f"not scored by the deadline; last error: {request.last_detail}", keep_failures=True
            )
            return False
        sent = request.next_items()
        replica = self._replicas.acquire(len(sent), request.tried)
        if not isinstance(replica, Replica):
            return self._wait(request, replica, left)
        try:
            self._send(request, replica, sent, min(left, self._config.attempt_timeout_seconds))
        finally:
            self._replicas.release(replica, len(sent))
        return True

    def _wait(self, request: PendingRequest, seconds: float, left: float) -> bool:
        """Sleep until a replica may be available, but for at most 1 s.

        If the deadline would pass first, or if waiting must stop, fail the request and return False.
        """
        unreachable = self._replicas.all_failed()
        if seconds >= left:
            if unreachable:
                self._abandoned.set()
            request.fail_pending(
                request.last_cause,
                f"no replica will be available before the deadline; last error: {self._last_error(request)}",
            )
            return False
        if unreachable and (self._abandoned.is_set() or self._closing.is_set() or self._should_stop()):
            reason = (
                "another call reached its deadline during this outage"
                if self._abandoned.is_set()
                else "the client was closed, or this process is stopping"
            )
            request.fail_pending(
                FailureCause.UNREACHABLE,
                f"not waiting for the reward service: {reason}; last error: {self._last_error(request)}",
            )
            return False
        if not request.tried and self._replicas.resolve_error:
            self._warn_waiting(left, self._replicas.resolve_error)
        time.sleep(min(max(0.01, seconds), 1.0))
        return True

    def _send(self, request: PendingRequest, replica: Replica, sent: list[int], timeout_seconds: float) -> None:
        request_id = uuid.uuid4().hex
        body = encode_request(
            [request.items[i] for i in sent],
            request_id=request_id,
            num_traces=request.num_traces,
            temperature=request.temperature,
            seed=request.seed,
            # The server's deadline is 5 % shorter than the client's timeout, so that the response arrives in time.
            deadline_ms=max(1, math.floor(timeout_seconds * 950)),
        )
        try:
            reply = self._transport.post(replica, body, timeout_seconds)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._record_unreachable(request, replica, f"{replica.url}: {type(error).__name__}: {error}")
        except httpx.TimeoutException as error:
            detail = f"{replica.url}: {type(error).__name__}"
            self._record_failure(request, replica, FailureCause.UNREACHABLE, detail)
        except httpx.HTTPError as error:
            detail = f"{replica.url}: {type(error).__name__}: {error}"
            self._record_failure(request, replica, FailureCause.UNREACHABLE, detail)
        else:
            if reply.status == 200:
                self._read_results(request, replica, sent, request_id, reply.content)
            else:
                self._read_error(request, replica, sent, reply)

    def _read_error(self, request: PendingRequest, replica: Replica, sent: list[int], reply: Reply) -> None:
        status, content = reply.status, reply.content
        if status == 429:
            request.record_failed_attempt(replica, FailureCause.OVERLOADED, f"{replica.url}: {_detail(content)}")
            self._replicas.record_busy(replica, reply.retry_after_s)
            return
        detail = f"{replica.url}: {status}: {_detail(content)}"
        if status in _MAY_BE_ITEMS:
            request.record_refusal(sent, detail)
        elif 400 <= status < 500 and status not in _TRANSIENT_4XX:
            request.fail_pending(FailureCause.REFUSED, detail)
        elif status < 400:
            self._refuse(request, replica, f"the status is {status}, but must be 200")
        elif status == 503:
            self._record_unreachable(request, replica, detail)
        else:
            self._record_failure(request, replica, FailureCause.OVERLOADED, detail)

    def _read_results(
        self, request: PendingRequest, replica: Replica, sent: list[int], request_id: str, content: bytes
    ) -> None:
        items = [request.items[i] for i in sent]
        try:
            response = read_response(content, items, request_id)
        except InvalidResponse as error:
            self._refuse(request, replica, str(error))
            return
        if not self._model.accepts(replica.url, response.model):
            self._refuse(request, replica, f"it is from model {response.model}, not from model {self._model.digest}")
            return
        self._replicas.record_success(replica)
        self._abandoned.clear()
        no_verdicts = any(isinstance(result, Scored) and not result.verdicts for result in response.results)
        scores_only = no_verdicts and self._transport.declares_scores_only(replica)
        results = checked_results(response, items, request.num_traces, scores_only=scores_only)
        for result in results:
            if isinstance(result, ScoreFailure) and result.cause is FailureCause.BAD_RESPONSE:
                self._warn_refused(replica, result.detail)
                break
        request.record_results(sent, results)
        if any(index in request.pending for index in sent):
            request.attempts += 1
            request.tried.add(replica)

    def _refuse(self, request: PendingRequest, replica: Replica, detail: str) -> None:
        """Refuse a response as a whole, so that another attempt is made, if possible on another replica."""
        self._warn_refused(replica, detail)
        detail = f"{replica.url}: the response was refused: {detail}"[:600]
        self._record_failure(request, replica, FailureCause.BAD_RESPONSE, detail)

    def _warn_refused(self, replica: Replica, detail: str) -> None:
        if time.monotonic() - self._refused_at > _WARN_INTERVAL_S:
            self._refused_at = time.monotonic()
            log.warning("refused a response of the reward service %s: %s", replica.url, detail[:600])

    def _record_unreachable(self, request: PendingRequest, replica: Replica, detail: str) -> None:
        """Record that ``replica`` is unreachable. This counts as an attempt unless ``config.wait_unreachable`` is true."""
        if not self._config.wait_unreachable:
            request.attempts += 1
        else:
            self._warn_waiting(request.deadline - time.monotonic(), detail)
        request.record_failed_attempt(replica, FailureCause.UNREACHABLE, detail)
        self._replicas.record_failure(replica)

    def _last_error(self, request: PendingRequest) -> str:
        """Return the reason why the last attempt failed or, if no replica is known, why there is none."""
        return request.last_detail if request.tried else self._replicas.resolve_error or request.last_detail

    def _warn_waiting(self, seconds: float, detail: str) -> None:
        if time.monotonic() - self._warned_at > _WARN_INTERVAL_S:
            self._warned_at = time.monotonic()
            log.warning("waiting up to %.0f s for the reward service: %s", seconds, detail)

    def _record_failure(self, request: PendingRequest, replica: Replica, cause: FailureCause, detail: str) -> None:
        request.attempts += 1
        request.record_failed_attempt(replica, cause, detail)
        self._replicas.record_failure(replica)


def _detail(content: bytes) -> str:
    try:
        return ErrorResponse.model_validate_json(content).detail
    except ValidationError:
        return content[:200].decode(errors="replace")
