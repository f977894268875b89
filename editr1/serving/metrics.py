"""Prometheus metrics of one reward server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from editr1.data.types import Scored, ScoreOutcome
from editr1.serving.batcher import Part
from editr1.telemetry import Metric

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ServerMetrics:
    """A registry of its own, so that several servers may live in one process. ``in_flight`` is asked at each scrape."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        gauge = Gauge(Metric.IN_FLIGHT, "Items queued or running.", registry=self._registry)
        gauge.set_function(in_flight)
        self._requests = Counter(Metric.REQUESTS, "Answers by HTTP status.", ["status"], registry=self._registry)
        self._items = Counter(Metric.ITEMS, "Items by outcome: ok, or a cause.", ["outcome"], registry=self._registry)
        self._batch = Histogram(Metric.BATCH_SIZE, "Items a batch.", buckets=_SIZES, registry=self._registry)
        self._queue = Histogram(
            Metric.QUEUE_SECONDS, "Wait in the queue, a request and batch.", buckets=_SECONDS, registry=self._registry
        )
        self._generate = Histogram(
            Metric.GENERATE_SECONDS, "Generation of a batch.", buckets=_SECONDS, registry=self._registry
        )
        self._tokens = Counter(Metric.TOKENS, "Tokens read and written.", ["kind"], registry=self._registry)

    def request(self, status: int) -> None:
        """Count an answer."""
        self._requests.labels(str(status)).inc()

    def outcomes(self, outcomes: Sequence[ScoreOutcome]) -> None:
        """Count what was answered, item by item."""
        for outcome in outcomes:
            self._items.labels("ok" if outcome.ok else str(outcome.cause)).inc()

    def batch(self, outcomes: Sequence[ScoreOutcome], generate_s: float) -> None:
        """Record a batch that ran."""
        self._batch.observe(len(outcomes))
        self._generate.observe(generate_s)
        for outcome in outcomes:
            if isinstance(outcome, Scored):
                self._tokens.labels("prompt").inc(outcome.prompt_tokens)
                self._tokens.labels("completion").inc(outcome.completion_tokens)

    def queued(self, parts: Sequence[Part]) -> None:
        """Record how long a request's items waited for their batches."""
        for part in parts:
            self._queue.observe(max(0.0, (part.start_ns - part.queued_ns) / 1e9))

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self._registry)
