"""The logic behind the HTTP routes of the reward server: admission, sampling settings, deadlines and readiness."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from editr1.config.serve import ServeConfig
from editr1.data.rules import Limits
from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.serving.api import Resolver, ScoreResponse, UnvalidatedRequest, decode_items
from editr1.serving.batcher import Batcher, Ticket
from editr1.serving.engines.base import Engine, Sampling
from editr1.serving.metrics import ServerMetrics
from editr1.serving.scoring import ScoredBatch, score_batch

_MAX_FAILED_BATCHES = 3
"""Number of consecutive batches without any generated trace after which the service is not ready."""


class BadRequest(ValueError):
    """The request is invalid as a whole. The message gives the field and the reason."""


class ClientDisconnected(Exception):
    """The client closed the connection before the response was ready."""


class RewardService:
    """Service that scores requests with one engine and tracks its own readiness.

    A golden sample is an edit for testing the engine. The service becomes ready when a golden sample has been scored.
    After three consecutive batches in which the engine generated nothing, it is not ready until a golden sample has
    been scored again. Invalid items do not count.

    Raises:
        ValueError: ``golden`` is empty.
    """

    def __init__(
        self, engine: Engine, config: ServeConfig, golden: Sequence[ScoreItem], resolver: Resolver | None = None
    ) -> None:
        if not golden:
            raise ValueError("golden: the list is empty; at least one sample is required")
        self.config = config
        self.engine = engine
        self.draining = False
        self.warm_up_error: str | None = None
        self._golden = tuple(golden)
        self._resolver = resolver
        self._limits = Limits(max_pixels=config.max_pixels)
        self._warm = False
        self._failed_batches = 0
        self._checking = threading.Lock()
        self._batcher = Batcher(
            self._score_batch,
            max_batch_size=config.max_batch_size,
            capacity=config.max_queued_items,
            wait_s=config.batch_wait_ms / 1000,
            on_batch=self._record_batch,
        )
        self.metrics = ServerMetrics(lambda: self._batcher.in_flight)

    @property
    def alive(self) -> bool:
        """Whether the worker thread that calls the engine is running."""
        return self._batcher.alive

    @property
    def full(self) -> bool:
        """Whether the queue is full, so that it cannot accept another item."""
        return self._batcher.full

    @property
    def retry_after_s(self) -> float:
        """Estimated seconds until one more item fits into the queue."""
        return self._batcher.retry_after_s(1)

    def not_ready_reason(self) -> str | None:
        """Return None if the service is ready, otherwise the reason in one line."""
        if self.draining:
            return "draining"
        if self.warm_up_error is not None:
            return self.warm_up_error
        if not self._warm:
            return "the golden sample has not been scored yet"
        if self._failed_batches >= _MAX_FAILED_BATCHES:
            self._check_golden_in_background()
            return f"the engine generated nothing in the last {self._failed_batches} batches"
        return None

    def warm_up(self) -> None:
        """Score the golden samples. If none is scored, set :attr:`warm_up_error` to the reason."""
        self.warm_up_error = self._check_golden()
        self._warm = self.warm_up_error is None

    def sampling(self, request: UnvalidatedRequest) -> Sampling:
        """Return the sampling settings of a request.

        Raises:
            BadRequest: The request requires more traces than allowed, or several greedy traces.
        """
        if request.num_traces > self.config.max_traces:
            raise BadRequest(
                f"num_traces: {request.num_traces} is too large; this server allows at most {self.config.max_traces}"
            )
        temperature = request.temperature
        if temperature is None:
            temperature = self.config.temperature if request.num_traces > 1 else 0.0
        if request.num_traces > 1 and temperature == 0:
            raise BadRequest(
                f"num_traces: {request.num_traces}: several traces require a temperature above 0, but this server's default "
                "is 0; set temperature in the request"
            )
        sampled = temperature > 0
        return Sampling(
            temperature=temperature,
            top_p=self.config.top_p if sampled else 1.0,
            max_tokens=self.config.max_new_tokens,
            num_traces=request.num_traces,
            seed=request.seed if sampled else None,
            min_parsed_fraction=self.config.min_parsed_fraction,
        )

    def read(self, body: bytes) -> tuple[UnvalidatedRequest, list[ScoreItem | ScoreFailure]]:
        """Parse the body of a request and validate each item separately.

        Raises:
            pydantic.ValidationError: The body is not JSON, or a field other than the items is invalid.
            BadRequest: The request has too many items.
        """
        request = UnvalidatedRequest.model_validate_json(body, strict=True)
        limit = self.config.max_request_items
        if len(request.items) > limit:
            raise BadRequest(
                f"items: the request has {len(request.items)} items, but this server allows at most {limit}; send several requests"
            )
        return request, decode_items(request.items, limits=self._limits, resolver=self._resolver)

    async def score(
        self,
        request: UnvalidatedRequest,
        items: Sequence[ScoreItem | ScoreFailure],
        arrived: float,
        disconnected: Callable[[], Awaitable[object]],
    ) -> tuple[ScoreResponse, Ticket]:
        """Queue the valid items and wait for their outcomes until the deadline.

        ``arrived`` is the arrival time on the clock of ``time.monotonic``. The awaitable returned by ``disconnected``
        completes when the client disconnects. Items that are not scored by the deadline fail with cause ``deadline``.

        Raises:
            BadRequest, QueueFull, Stopped: The request is rejected, and nothing was queued.
            ClientDisconnected: The client disconnected; its queued items are dropped.
        """
        valid = [index for index, item in enumerate(items) if isinstance(item, ScoreItem)]
        limit = self.config.deadline_seconds
        seconds = limit if request.deadline_ms is None else min(limit, request.deadline_ms / 1000)
        ticket = self._batcher.submit(
            [item for item in items if isinstance(item, ScoreItem)], self.sampling(request), arrived + seconds
        )
        scored = await self._wait(ticket, disconnected)
        results: list[ScoreOutcome | None] = [item if isinstance(item, ScoreFailure) else None for item in items]
        for index, outcome in zip(valid, scored, strict=True):
            item = items[index]
            if isinstance(outcome, ScoreFailure) and isinstance(item, ScoreItem):
                outcome = outcome.model_copy(update={"edited": item.edited.digest})
            results[index] = outcome
        final = tuple(result for result in results if result is not None)
        self.metrics.record_outcomes(final)
        self.metrics.record_queueing(ticket.timings)
        return ScoreResponse(request_id=request.request_id, model=self.engine.model_digest, results=final), ticket

    def stop(self) -> bool:
        """Score the queued items and close the engine. Return False if this exceeds ``drain_timeout_seconds``."""
        self.draining = True
        finished = self._batcher.stop(self.config.drain_timeout_seconds)
        if finished:
            self.engine.close()
        return finished

    async def _wait(self, ticket: Ticket, disconnected: Callable[[], Awaitable[object]]) -> list[ScoreOutcome]:
        future = asyncio.wrap_future(ticket.future)
        watcher = asyncio.ensure_future(disconnected())
        try:
            waiting: set[asyncio.Future[object]] = {future, watcher}  # type: ignore[arg-type]
            await asyncio.wait(
                waiting, timeout=max(0.0, ticket.deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if future.done():
                return future.result()
            if watcher.done():
                raise ClientDisconnected
            late = ScoreFailure(cause=FailureCause.DEADLINE, detail="not scored by the deadline; set a later deadline")
            return [late if outcome is None else outcome for outcome in ticket.outcomes]
        finally:
            future.cancel()
            watcher.cancel()

    def _score_batch(self, items: Sequence[ScoreItem], sampling: Sampling) -> ScoredBatch:
        return score_batch(self.engine, items, sampling, limits=self._limits)

    def _record_batch(self, batch: ScoredBatch) -> None:
        # An invalid item fails on every engine, so it is no evidence about the health of this engine.
        causes = [o.cause if isinstance(o, ScoreFailure) else None for o in batch.outcomes]
        tried = [cause for cause in causes if cause is not FailureCause.INVALID]
        if tried:
            dead = all(cause is FailureCause.ENGINE for cause in tried)
            self._failed_batches = self._failed_batches + 1 if dead else 0
        self.metrics.record_batch(batch.outcomes, (batch.generate_end_ns - batch.generate_start_ns) / 1e9)

    def _check_golden(self) -> str | None:
        """Score the golden samples. Return None if at least one was scored, otherwise the reason."""
        greedy = Sampling(max_tokens=self.config.max_new_tokens)
        limit = self.config.deadline_seconds
        try:
            ticket = self._batcher.submit(self._golden, greedy, time.monotonic() + limit)
            outcomes = ticket.future.result(limit)
        except Exception as error:
            return f"scoring the golden sample failed: {type(error).__name__}: {error}"
        accepted = () if self.config.golden_must_parse else (FailureCause.UNPARSED,)
        if any(not isinstance(o, ScoreFailure) or o.cause in accepted for o in outcomes):
            return None
        failure = next(o for o in outcomes if isinstance(o, ScoreFailure))
        hint = (
            " (to accept unparseable traces, set golden_must_parse: false)"
            if failure.cause is FailureCause.UNPARSED
            else ""
        )
        return f"the golden sample was not scored: {failure.cause}{hint}: {failure.detail}"

    def _check_golden_in_background(self) -> None:
        if not self._checking.acquire(blocking=False):
            return

        def check() -> None:
            try:
                self._check_golden()
            finally:
                self._checking.release()

        threading.Thread(target=check, name="editr1-recheck", daemon=True).start()
