"""The reward service behind the HTTP routes: admission, sampling, waiting, warm-up. One object a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

from editr1.config.serve import ServeConfig
from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.serving.api import LooseRequest, Resolver, ScoreResponse, decode_items
from editr1.serving.batcher import Batcher, Ticket
from editr1.serving.engines.base import Engine, Sampling
from editr1.serving.metrics import ServerMetrics
from editr1.serving.scoring import ScoredBatch, score_batch

_RECHECK_AFTER = 3


class BadRequest(ValueError):
    """The request as a whole cannot be served; the message says which field and why."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class RewardService:
    """Scores requests through one engine and knows whether it is ready.

    It is ready once a golden sample has been scored; after three batches in a row in which the engine answered nothing
    it is not, until a golden sample is scored again.
    """

    def __init__(
        self, engine: Engine, config: ServeConfig, golden: Sequence[ScoreItem], resolver: Resolver | None = None
    ) -> None:
        if not golden:
            raise ValueError("golden: at least one sample is needed")
        self.config = config
        self.engine = engine
        self.draining = False
        self.warm_up_error: str | None = None
        self._golden = tuple(golden)
        self._resolver = resolver
        self._warm = False
        self._dead_batches = 0
        self._checking = threading.Lock()
        self._batcher = Batcher(
            self._run,
            max_batch_size=config.max_batch_size,
            capacity=config.max_queued_items,
            wait_s=config.batch_wait_ms / 1000,
            on_batch=self._watch,
        )
        self.metrics = ServerMetrics(lambda: self._batcher.in_flight)

    @property
    def alive(self) -> bool:
        """Whether the worker that runs the engine is there."""
        return self._batcher.alive

    @property
    def full(self) -> bool:
        """Whether the queue takes nothing at the moment."""
        return self._batcher.full

    @property
    def retry_after_s(self) -> float:
        """Seconds after which one more item will probably fit."""
        return self._batcher.retry_after_s(1)

    def not_ready_because(self) -> str | None:
        """None when ready, else the reason in one line."""
        if self.draining:
            return "draining"
        if self.warm_up_error is not None:
            return self.warm_up_error
        if not self._warm:
            return "the golden sample is not scored yet"
        if self._dead_batches >= _RECHECK_AFTER:
            self._recheck()
            return "the engine does not answer"
        return None

    def warm_up(self) -> None:
        """Score the golden samples through the queue; on failure :attr:`warm_up_error` says why. Blocks."""
        self.warm_up_error = self._check_golden()
        self._warm = self.warm_up_error is None

    def sampling(self, request: LooseRequest) -> Sampling:
        """How the request's traces are drawn. Raises :class:`BadRequest` for what this server does not do."""
        if request.num_traces > self.config.max_traces:
            raise BadRequest(f"num_traces: {request.num_traces}: this server allows at most {self.config.max_traces}")
        temperature = request.temperature
        if temperature is None:
            temperature = self.config.temperature if request.num_traces > 1 else 0.0
        if request.num_traces > 1 and temperature == 0:
            raise BadRequest("num_traces: several need a temperature above 0, and this server's own is 0")
        sampled = temperature > 0
        return Sampling(
            temperature=temperature,
            top_p=self.config.top_p if sampled else 1.0,
            max_tokens=self.config.max_new_tokens,
            num_traces=request.num_traces,
            seed=request.seed if sampled else None,
        )

    def read(self, body: bytes) -> tuple[LooseRequest, list[ScoreItem | ScoreFailure]]:
        """The request and its items, each checked on its own. Raises ``ValidationError`` or :class:`BadRequest`."""
        request = LooseRequest.model_validate_json(body)
        if len(request.items) > self.config.max_request_items:
            raise BadRequest(
                f"items: {len(request.items)}: this server allows at most {self.config.max_request_items} a request"
            )
        items = decode_items(
            request.items,
            max_pixels=self.config.max_pixels,
            max_bytes=self.config.max_body_bytes,
            resolver=self._resolver,
        )
        return request, items

    async def score(
        self,
        request: LooseRequest,
        items: Sequence[ScoreItem | ScoreFailure],
        arrived: float,
        gone: Callable[[], Awaitable[object]],
    ) -> tuple[ScoreResponse, Ticket]:
        """Queue the good items and wait for them, until the deadline at most.

        ``arrived`` is the request's arrival on ``time.monotonic``; ``gone`` returns when the client has left. What was
        scored by the deadline is answered, the rest fails with cause ``deadline``.

        Raises:
            BadRequest, QueueFull, Stopped: nothing was queued.
            ClientGone: the work was dropped.
        """
        good = [index for index, item in enumerate(items) if isinstance(item, ScoreItem)]
        wanted = self.config.deadline_seconds if request.deadline_ms is None else request.deadline_ms / 1000
        deadline = arrived + min(wanted, self.config.deadline_seconds)
        ticket = self._batcher.submit(
            [item for item in items if isinstance(item, ScoreItem)], self.sampling(request), deadline
        )
        scored = await self._wait(ticket, gone)
        results: list[ScoreOutcome | None] = [item if isinstance(item, ScoreFailure) else None for item in items]
        for index, outcome in zip(good, scored, strict=True):
            results[index] = outcome
        final = tuple(result for result in results if result is not None)
        self.metrics.outcomes(final)
        self.metrics.queued(ticket.parts)
        return ScoreResponse(model=self.engine.model_digest, results=final), ticket

    def stop(self) -> bool:
        """Finish what is queued and close the engine; False when ``drain_timeout_seconds`` did not suffice."""
        self.draining = True
        finished = self._batcher.stop(self.config.drain_timeout_seconds)
        if finished:
            self.engine.close()
        return finished

    async def _wait(self, ticket: Ticket, gone: Callable[[], Awaitable[object]]) -> list[ScoreOutcome]:
        future = asyncio.wrap_future(ticket.future)
        watcher = asyncio.ensure_future(gone())
        try:
            waiting: set[asyncio.Future[object]] = {future, watcher}  # type: ignore[arg-type]
            await asyncio.wait(
                waiting, timeout=max(0.0, ticket.deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if future.done():
                return future.result()
            if watcher.done():
                raise ClientGone
            late = ScoreFailure(cause=FailureCause.DEADLINE, detail="not scored by the deadline")
            return [late if outcome is None else outcome for outcome in ticket.outcomes]
        finally:
            future.cancel()
            watcher.cancel()

    def _run(self, items: Sequence[ScoreItem], sampling: Sampling) -> ScoredBatch:
        return score_batch(self.engine, items, sampling, max_pixels=self.config.max_pixels)

    def _watch(self, outcomes: list[ScoreOutcome], batch: ScoredBatch) -> None:
        dead = all(isinstance(o, ScoreFailure) and o.cause is FailureCause.ENGINE for o in outcomes)
        self._dead_batches = self._dead_batches + 1 if dead else 0
        self.metrics.batch(outcomes, (batch.generate_end_ns - batch.generate_start_ns) / 1e9)

    def _check_golden(self) -> str | None:
        greedy = Sampling(max_tokens=self.config.max_new_tokens)
        try:
            ticket = self._batcher.submit(self._golden, greedy, time.monotonic() + self.config.deadline_seconds)
            outcomes = ticket.future.result(self.config.deadline_seconds)
        except Exception as error:
            return f"the golden sample could not be run: {type(error).__name__}: {error}"
        causes = () if self.config.golden_must_parse else (FailureCause.UNPARSED,)
        if any(not isinstance(o, ScoreFailure) or o.cause in causes for o in outcomes):
            return None
        failure = next(o for o in outcomes if isinstance(o, ScoreFailure))
        hint = " (golden_must_parse: false allows it)" if failure.cause is FailureCause.UNPARSED else ""
        return f"the golden sample was not scored: {failure.cause}{hint}: {failure.detail}"

    def _recheck(self) -> None:
        if not self._checking.acquire(blocking=False):
            return

        def check() -> None:
            try:
                self._check_golden()
            finally:
                self._checking.release()

        threading.Thread(target=check, name="editr1-recheck", daemon=True).start()
