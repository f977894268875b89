"""Run one step of curation for many items: process them concurrently, report progress, stop on request, and count failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from editr1.config.curate import CurateConfig
from editr1.config.llm import VlmConfig
from editr1.curation.errors import CurationError
from editr1.curation.experts import ExpertExample
from editr1.curation.prompts import Prompt
from editr1.data.images import ImageError
from editr1.errors import Editr1Error
from editr1.llm.answers import UnreadableAnswer
from editr1.llm.errors import EndpointMisconfigured, EndpointUnavailable, RequestRefused
from editr1.llm.messages import build_messages
from editr1.llm.vlm import VlmClient
from editr1.seeding import curation_seed
from editr1.telemetry import Interrupted, Span, TrainHooks, span

T = TypeVar("T")
A = TypeVar("A")

_log = logging.getLogger(__name__)
_REPORT_INTERVAL_S: Final = 0.25
_MIN_FAILURES: Final = 20
"""The setting ``max_failed_fraction`` is enforced as soon as this number of items has failed."""


@dataclass
class CurationContext:
    """The state shared by all steps: settings, client, hooks, expert examples, and failures per step and cause."""

    config: CurateConfig
    client: VlmClient
    hooks: TrainHooks = field(default_factory=TrainHooks)
    experts: list[ExpertExample] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    """The failures for which a later call sends requests again: all failures except images that cannot be decoded."""
    totals: Counter[str] = field(default_factory=Counter)
    """Number of items per step, including those that an earlier call completed."""
    first_loss: str = ""
    """Summary of the first step in which items failed, or an empty string."""

    @property
    def concurrency(self) -> int:
        """Number of items that are processed concurrently: the sum of the setting ``concurrency`` of all endpoints."""
        return sum(endpoint.concurrency for endpoint in self.config.endpoints.values())

    def count_failure(self, step: str, cause: str, *, may_succeed_later: bool) -> None:
        """Count an item that failed.

        ``may_succeed_later`` states whether the item may succeed with a different answer.
        """
        self.failures[f"{step}: {cause}"] += 1
        self.missing[f"{step}: {cause}"] += may_succeed_later

    def missing_items(self) -> tuple[dict[str, int], int]:
        """Return the number of missing items by step and cause, and the total number of items in these steps."""
        causes = {name: number for name, number in sorted(self.missing.items()) if number}
        return causes, sum(self.totals[step] for step in {name.partition(": ")[0] for name in causes})

    async def complete_until_parsed(self, model: VlmConfig, prompt: Prompt, parse: Callable[[str], A], key: str) -> A:
        """Send ``prompt`` until ``parse`` accepts the answer, and return the parsed value.

        Each of the ``config.max_attempts`` attempts has a different seed.

        Raises:
            UnreadableAnswer: ``parse`` rejected every answer. The message contains the model and the rule that the
                first answer violated.
            LlmError: The request failed.
        """
        chat = build_messages(prompt.system, prompt.parts, self.config.max_side)
        seeds = (curation_seed(self.config.seed, key, attempt) for attempt in range(self.config.max_attempts))
        try:
            return await self.client.complete_until_parsed(model, chat, parse, seeds)
        except UnreadableAnswer as error:
            raise UnreadableAnswer(f"model {model.model}: {error}") from error


async def run_step(
    context: CurationContext,
    name: str,
    items: Iterable[T],
    process: Callable[[T], Awaitable[None]],
    *,
    total: int,
    done: int = 0,
) -> None:
    """Process every item, ``context.concurrency`` at a time, in the order of ``items``.

    ``total`` is the number of all items of the step, and ``done`` is the number of items that an earlier call
    completed. An item fails if its request is rejected, if it receives no answer or only answers that cannot be
    parsed, or if its image cannot be decoded. A failed item is counted in ``context.failures``, and the next call
    processes it again.

    Raises:
        Interrupted: ``hooks.should_stop`` returned True. Items in progress were completed.
        EndpointUnavailable: Too many items received no answer, or at least three items were sent and none received one.
        EndpointMisconfigured: An endpoint rejects every request.
        CurationError: Too many items failed for other reasons, or at least three items were sent and all of them failed.
    """
    step = _Step(context, name, total - done, done)
    context.totals[name] += total
    context.hooks.progress.phase(name, total, done)
    with span(Span.PHASE, phase=name, items=step.remaining):
        try:
            await step.run(iter(items), process)
        finally:
            step.report()
    if step.stopping:
        raise Interrupted
    if step.failed:
        context.first_loss = context.first_loss or str(step.failure())
        _log.warning("%s", step.failure())
    # One or two failed items do not prove that all items will fail, because the items themselves may be the cause.
    if step.started > 2 and step.failed == step.started and not done:
        raise step.failure("because no request received a response" if step.unanswered == step.failed else "")


class _Step:
    """A step that is running, with its workers and counters."""

    def __init__(self, context: CurationContext, name: str, remaining: int, done: int) -> None:
        self.remaining = remaining
        self._done = done
        self.started = self.failed = self.unanswered = 0
        self.stopping = False
        self._context = context
        self._name = name
        self._causes: Counter[str] = Counter()
        self._first_error: Exception | None = None
        self._unreported = 0
        self._reported_at = time.monotonic()

    async def run(self, pending: Iterable[T], process: Callable[[T], Awaitable[None]]) -> None:
        workers = max(1, min(self._context.concurrency, self.remaining))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(pending, process))
        except BaseExceptionGroup as errors:
            # Not except*: before Python 3.11.4 an exception raised inside it is wrapped in a group.
            expected, rest = errors.split((CurationError, EndpointUnavailable, EndpointMisconfigured))
            if expected is None or rest is not None:
                raise
            raise expected.exceptions[0] from None

    async def _work(self, pending: Iterable[T], process: Callable[[T], Awaitable[None]]) -> None:
        """Process items from ``pending``, which all workers share, until no item is left or the step is interrupted."""
        for item in pending:
            self.started += 1
            try:
                await process(item)
            except (RequestRefused, EndpointUnavailable, ImageError, UnreadableAnswer) as error:
                self._record_failure(error)
            self._unreported += 1
            if time.monotonic() - self._reported_at > _REPORT_INTERVAL_S:
                self.report()
            self.stopping = self.stopping or self._context.hooks.should_stop()
            if self.stopping:
                return

    def _record_failure(self, error: Exception) -> None:
        self.failed += 1
        self.unanswered += isinstance(error, EndpointUnavailable)
        self._causes[type(error).__name__] += 1
        self._first_error = self._first_error or error
        retried = not isinstance(error, ImageError)
        self._context.count_failure(self._name, type(error).__name__, may_succeed_later=retried)
        _log.warning("%s: an item failed and is skipped: %s", self._name, error)
        limit = self._context.config.max_failed_fraction
        if self.failed >= _MIN_FAILURES and self.failed > limit * (self._done + self.started):
            raise self.failure(f"which is more than the setting max_failed_fraction ({limit:g}) allows") from error

    def failure(self, reason: str = "") -> Editr1Error:
        """Return an exception that states how many items failed, by cause, and why the first item failed.

        It is EndpointUnavailable if most failed items received no response.
        """
        kind = EndpointUnavailable if 2 * self.unanswered > self.failed else CurationError
        causes = ", ".join(f"{cause}: {number}" for cause, number in self._causes.most_common())
        failed = ", ".join(filter(None, (f"{self._name}: {self.failed} of {self.started} items failed", reason)))
        return kind(f"{failed} ({causes}). The first failure: {self._first_error}")

    def report(self) -> None:
        """Report progress: the number of items that were completed since the last report."""
        if self._unreported:
            usage = self._context.client.usage
            self._context.hooks.progress.step(
                self._unreported, requests=usage.requests, cached=usage.cached, failed=self.failed
            )
        self._unreported, self._reported_at = 0, time.monotonic()
