"""What every step of curation has in common: many items at once, progress, stops, failures, seeds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from editr1.config.curate import CurateConfig, VlmConfig
from editr1.curation import wire
from editr1.curation.answers import Unreadable
from editr1.curation.errors import CurationError, VlmMisconfigured, VlmRefused, VlmUnavailable
from editr1.curation.experts import Expert
from editr1.curation.prompts import Parts
from editr1.curation.vlm import VlmClient
from editr1.data.images import ImageError
from editr1.seeding import curation_seed
from editr1.telemetry import Interrupted, Span, TrainHooks, span

T = TypeVar("T")
A = TypeVar("A")

_log = logging.getLogger(__name__)
_REPORT_S: Final = 0.25
_ENOUGH_FAILURES: Final = 20


@dataclass
class Job:
    """What the steps share: settings, client, hooks, the pool of experts, and the count of what failed by cause."""

    config: CurateConfig
    client: VlmClient
    hooks: TrainHooks = field(default_factory=TrainHooks)
    experts: list[Expert] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def lanes(self) -> int:
        """Items worked on at once: enough to fill every endpoint."""
        return sum(endpoint.concurrency for endpoint in self.config.endpoints.values())


async def ask_until_read(
    job: Job, use: VlmConfig, prompt: tuple[str, Parts], read: Callable[[str], A], key: str
) -> A | str:
    """Ask until the answer can be read, ``config.attempts`` times at most.

    Returns what ``read`` makes of it, or the last reason (a string starting with "unreadable") why it could not.
    """
    system, parts = prompt
    chat = wire.messages(system, parts, job.config.max_side)
    reason = ""
    for attempt in range(job.config.max_attempts):
        (text,) = await job.client.ask(use, chat, seed=curation_seed(job.config.seed, key, attempt))
        try:
            return read(text)
        except Unreadable as error:
            reason = f"unreadable: {error}"
    return reason


async def each(
    job: Job, name: str, items: Iterable[T], work: Callable[[T], Awaitable[None]], *, total: int, done: int = 0
) -> None:
    """Do ``work`` for every item, ``job.lanes`` at a time, in order of arrival.

    ``total`` counts all items of the step, ``done`` those that an earlier run did. An item whose request is refused or
    unanswered, or whose picture cannot be read, is counted in ``job.failures`` and left for the next run.

    Raises:
        Interrupted: ``hooks.should_stop`` said yes; what was in flight is done.
        VlmUnavailable: too many items got no answer, or all of several: asked again later they may.
        CurationError: too many items failed in other ways, or an endpoint refuses everything.
    """
    pending = iter(items)
    failed = begun = unreported = unanswered = 0
    last: Exception | None = None
    reported = time.monotonic()
    stopping = False
    job.hooks.progress.phase(name, total, done)

    def report() -> None:
        nonlocal unreported, reported
        if unreported:
            usage = job.client.usage
            job.hooks.progress.step(unreported, requests=usage.requests, cached=usage.cached, failed=failed)
        unreported, reported = 0, time.monotonic()

    def spent(which: str) -> CurationError:
        kind = VlmUnavailable if 2 * unanswered > failed else CurationError
        return kind(f"{name}: {failed} of {begun} items failed, {which}; the last one: {last}")

    async def lane() -> None:
        nonlocal failed, begun, unreported, stopping, unanswered, last
        for item in pending:
            begun += 1
            try:
                await work(item)
            except (VlmRefused, VlmUnavailable, ImageError) as error:
                failed, last = failed + 1, error
                unanswered += isinstance(error, VlmUnavailable)
                job.failures[f"{name}: {type(error).__name__}"] += 1
                _log.warning("%s: %s", name, error)
                if failed >= _ENOUGH_FAILURES and failed > job.config.max_failed_fraction * begun:
                    raise spent(f"above max_failed_fraction {job.config.max_failed_fraction:g}") from error
            unreported += 1
            if time.monotonic() - reported > _REPORT_S:
                report()
            stopping = stopping or job.hooks.should_stop()
            if stopping:
                return

    with span(Span.PHASE, phase=name, items=total - done):
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, min(job.lanes, total - done))):
                    group.create_task(lane())
        except BaseExceptionGroup as errors:
            # Not except*: before Python 3.11.4 what is raised in it comes out wrapped in a group.
            foreseen, rest = errors.split((CurationError, VlmMisconfigured))
            if foreseen is None or rest is not None:
                raise
            raise foreseen.exceptions[0] from None
        finally:
            report()
    if stopping:
        raise Interrupted
    if begun > 2 and unanswered == begun and not done:  # one or two may be items that no model answers
        raise spent("none was answered")
