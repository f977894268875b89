"""The client of the reward service: spreads over replicas, retries on another, keeps a deadline, masks failures."""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Self

import httpx
from pydantic import ValidationError

from editr1.config.serve import ClientConfig
from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.errors import Editr1Error, ExitCode
from editr1.serving.api import ErrorResponse, ScoreResponse, encode_request
from editr1.serving.replicas import Replica, Replicas, Resolve, system_resolve
from editr1.telemetry import Span, inject, span

log = logging.getLogger(__name__)

_DEFAULT: Final = ClientConfig()
_WARN_S: Final = 60.0
_RETRIED: Final = (FailureCause.ENGINE, FailureCause.OVERLOADED, FailureCause.DEADLINE)


class ModelMismatch(Editr1Error, RuntimeError):
    """A replica answered with another model than the one whose scores this run is made of."""

    exit_code = ExitCode.INPUT


class RewardClient:
    """Scores edits through one or several reward servers. Thread-safe; use it as a context manager or ``close`` it.

    ``urls`` are base URLs; a host name stands for all its addresses. All scores come from one model digest: that of
    ``expected_digest``, or else of the first answer; an answer of another model raises :class:`ModelMismatch`. Once
    ``should_stop`` says yes, the client is closed, or one call waited in vain, a service that is away is no longer waited
    for, until it answers.
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
        self._given_up = threading.Event()
        self._warned = float("-inf")
        self._digest = expected_digest
        self._digest_lock = threading.Lock()
        self._replicas = Replicas(
            urls,
            resolve_interval_seconds=config.resolve_interval_seconds,
            backoff_seconds=config.backoff_seconds,
            resolve=resolve,
        )
        self._http = httpx.Client(
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=config.concurrency, keepalive_expiry=30
            ),
            trust_env=False,
        )
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
        """Score ``items``, index-aligned. What could not be scored in time is a ``ScoreFailure``, never an exception.

        ``deadline_seconds`` (default: the config's) is the total, retries included. ``num_traces`` traces are averaged per item;
        ``temperature`` None is greedy for one trace and the server's own for several.

        Raises:
            ModelMismatch: replicas serve different models, or not the expected one.
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
        """As :meth:`score`, without waiting: sampling goes on while rewards are on their way."""
        if num_traces < 1:
            raise ValueError(f"num_traces: {num_traces}: must be at least 1")
        if num_traces > 1 and temperature == 0:
            raise ValueError("num_traces > 1 needs a temperature above 0: greedy traces would all be equal")
        total = self._config.deadline_seconds if deadline_seconds is None else deadline_seconds
        until = time.monotonic() + total
        jobs = [_Job(list(chunk), num_traces, temperature, seed, until) for chunk in self._chunks(items)]
        futures = [self._pool.submit(contextvars.copy_context().run, self._work, job) for job in jobs]
        return _joined(futures)

    def model_digest(self) -> str:
        """Digest of the model that answers. Known after the first answer, or from ``expected_digest``.

        Raises:
            LookupError: nothing was answered yet and none was expected.
        """
        if self._digest is None:
            raise LookupError("the model's digest is known after the first score")
        return self._digest

    def close(self) -> None:
        """Wait for the answers under way, but for no service that is away, and close the connections."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _chunks(self, items: Sequence[ScoreItem]) -> Iterator[list[ScoreItem]]:
        chunk: list[ScoreItem] = []
        size = 0
        seen: set[int] = set()
        for item in items:
            new = sum(len(p.data) for p in (item.source, item.edited) if id(p) not in seen)
            if chunk and (len(chunk) >= self._config.max_request_items or size + new > self._config.max_request_bytes):
                yield chunk
                chunk, size, seen = [], 0, set()
                new = len(item.source.data) + len(item.edited.data)
            chunk.append(item)
            size += new
            seen |= {id(item.source), id(item.edited)}
        if chunk:
            yield chunk

    def _work(self, job: _Job) -> list[ScoreOutcome]:
        with span(Span.REWARD_REQUEST, items=len(job.items), traces=job.num_traces) as current:
            while job.pending and job.attempts < self._config.max_attempts:
                if not self._try(job):
                    break
            outcomes = job.outcomes()
            current.set_attribute("attempts", job.attempts)
            current.set_attribute("failed", sum(1 for outcome in outcomes if not outcome.ok))
            return outcomes

    def _try(self, job: _Job) -> bool:
        """One request to one replica, or one wait. False when the job's time is over."""
        left = job.until - time.monotonic()
        if left <= 0:
            gone = job.cause is FailureCause.UNREACHABLE
            cause = FailureCause.UNREACHABLE if gone else FailureCause.DEADLINE
            job.fail(cause, f"not scored in time; last: {job.last}", keep_known=True)
            return False
        taken = self._replicas.take(len(job.pending), job.tried)
        if not isinstance(taken, Replica):
            away = self._replicas.away()
            if taken >= left:
                if away:
                    self._given_up.set()
                job.fail(job.cause, f"no replica is free before the deadline; last: {job.last}")
                return False
            if away and (self._given_up.is_set() or self._closing.is_set() or self._should_stop()):
                why = "another call waited in vain" if self._given_up.is_set() else "this process ends"
                job.fail(FailureCause.UNREACHABLE, f"not waited for, as {why}; last: {job.last}")
                return False
            time.sleep(min(max(0.01, taken), 1.0))
            return True
        sent = list(job.pending)
        try:
            self._ask(job, taken, sent, min(left, self._config.attempt_timeout_seconds))
        finally:
            self._replicas.give_back(taken, len(sent))
        return True

    def _ask(self, job: _Job, replica: Replica, sent: list[int], timeout_seconds: float) -> None:
        body = encode_request(
            [job.items[i] for i in sent],
            num_traces=job.num_traces,
            temperature=job.temperature,
            seed=job.seed,
            deadline_ms=max(1, math.floor(timeout_seconds * 950)),
        )
        headers = {"Content-Type": "application/json", "Host": replica.host}
        inject(headers)
        try:
            with self._http.stream(
                "POST",
                f"{replica.url}/v1/score",
                content=body,
                headers=headers,
                timeout=httpx.Timeout(
                    timeout_seconds, connect=min(timeout_seconds, self._config.connect_timeout_seconds)
                ),
                extensions={"sni_hostname": replica.tls_name} if replica.tls_name else None,
            ) as response:
                content = _within(response, time.monotonic() + timeout_seconds)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._away(job, replica, f"{replica.url}: {type(error).__name__}: {error}")
        except httpx.TimeoutException as error:
            self._failed(job, replica, FailureCause.UNREACHABLE, f"{replica.url}: {type(error).__name__}")
        except httpx.HTTPError as error:
            self._failed(job, replica, FailureCause.UNREACHABLE, f"{replica.url}: {type(error).__name__}: {error}")
        else:
            self._read(job, replica, sent, response, content)

    def _read(self, job: _Job, replica: Replica, sent: list[int], response: httpx.Response, content: bytes) -> None:
        status = response.status_code
        if status == 429:
            job.note(replica, FailureCause.OVERLOADED, f"{replica.url}: {_detail(content)}")
            self._replicas.busy(replica, _retry_after(response))
            return
        if status in (400, 404, 405, 413, 415, 422):
            job.fail(FailureCause.INVALID, f"{replica.url}: {status}: {_detail(content)}")
            return
        if status == 503:
            self._away(job, replica, f"{replica.url}: {status}: {_detail(content)}")
            return
        if status != 200:
            self._failed(job, replica, FailureCause.OVERLOADED, f"{replica.url}: {status}: {_detail(content)}")
            return
        try:
            answer = ScoreResponse.model_validate_json(content)
        except ValidationError as error:
            self._failed(job, replica, FailureCause.ENGINE, f"{replica.url}: unreadable answer: {error}"[:500])
            return
        if len(answer.results) != len(sent):
            text = f"{replica.url}: {len(answer.results)} results for {len(sent)} items"
            self._failed(job, replica, FailureCause.ENGINE, text)
            return
        self._check_digest(replica, answer.model)
        self._replicas.succeeded(replica)
        self._given_up.clear()
        job.settle(sent, answer.results)
        if job.pending:
            job.attempts += 1
            job.tried.add(replica)

    def _away(self, job: _Job, replica: Replica, detail: str) -> None:
        """``replica`` takes no work now: a failed try, or waited for, as ``wait_unreachable`` says."""
        if not self._config.wait_unreachable:
            job.attempts += 1
        elif time.monotonic() - self._warned > _WARN_S:
            self._warned = time.monotonic()
            log.warning("waiting for the reward service, %.0f s more at most: %s", job.until - self._warned, detail)
        job.note(replica, FailureCause.UNREACHABLE, detail)
        self._replicas.failed(replica)

    def _failed(self, job: _Job, replica: Replica, cause: FailureCause, detail: str) -> None:
        job.attempts += 1
        job.note(replica, cause, detail)
        self._replicas.failed(replica)

    def _check_digest(self, replica: Replica, digest: str) -> None:
        with self._digest_lock:
            if self._digest is None:
                self._digest = digest
            if digest != self._digest:
                raise ModelMismatch(f"{replica.url} serves {digest}, but this run's scores come from {self._digest}")


@dataclass
class _Job:
    """One request's items and what is known of them so far."""

    items: list[ScoreItem]
    num_traces: int
    temperature: float | None
    seed: int | None
    until: float
    attempts: int = 0
    tried: set[Replica] = field(default_factory=set)
    cause: FailureCause = FailureCause.UNREACHABLE
    last: str = "no replica was asked"

    def __post_init__(self) -> None:
        self.pending = list(range(len(self.items)))
        self._known: dict[int, ScoreOutcome] = {}
        self._retried: set[int] = set()

    def note(self, replica: Replica, cause: FailureCause, detail: str) -> None:
        """``replica`` did not score the job."""
        self.tried.add(replica)
        self.cause, self.last = cause, detail

    def settle(self, sent: Sequence[int], results: Sequence[ScoreOutcome]) -> None:
        """Take an answer; a failure that another try may mend stays pending once, all else is done with."""
        for index, outcome in zip(sent, results, strict=True):
            self._known[index] = outcome
            if not isinstance(outcome, ScoreFailure) or outcome.cause not in _RETRIED or index in self._retried:
                self.pending.remove(index)
            else:
                self._retried.add(index)
                self.cause, self.last = outcome.cause, outcome.detail

    def fail(self, cause: FailureCause, detail: str, *, keep_known: bool = False) -> None:
        """Give up on all that is pending."""
        for index in self.pending:
            if not (keep_known and index in self._known):
                self._known[index] = ScoreFailure(cause=cause, detail=detail)
        self.pending = []

    def outcomes(self) -> list[ScoreOutcome]:
        """One outcome an item; what is still pending failed with the last cause met."""
        self.fail(self.cause, f"after {self.attempts} attempts: {self.last}", keep_known=True)
        return [self._known[index] for index in range(len(self.items))]


def _joined(futures: Sequence[Future[list[ScoreOutcome]]]) -> Future[list[ScoreOutcome]]:
    """One future for all chunks' outcomes in order; the first exception wins once all are done."""
    whole: Future[list[ScoreOutcome]] = Future()
    whole.set_running_or_notify_cancel()
    left = len(futures)
    lock = threading.Lock()

    def finish() -> None:
        try:
            whole.set_result([outcome for future in futures for outcome in future.result()])
        except BaseException as error:
            whole.set_exception(error)

    def done(_: Future[list[ScoreOutcome]]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            finish()

    if not futures:
        finish()
    for future in futures:
        future.add_done_callback(done)
    return whole


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(60.0, max(0.05, float(response.headers.get("Retry-After", "1"))))
    except ValueError:
        return 1.0


def _detail(content: bytes) -> str:
    try:
        return ErrorResponse.model_validate_json(content).detail
    except ValidationError:
        return content[:200].decode(errors="replace")


def _within(response: httpx.Response, until: float) -> bytes:
    """The answer's body; httpx's own timeouts are for one read each, so that a server which dribbles would never end."""
    chunks = []
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer did not come to its end in time")
    return b"".join(chunks)
