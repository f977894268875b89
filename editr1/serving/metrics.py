"""Prometheus metrics of one reward server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from editr1.data.types import Scored, ScoreOutcome
from editr1.serving.batcher import BatchTiming
from editr1.telemetry import Metric

_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ServerMetrics:
    """The metrics of one server. They have their own registry, so that one process can run several servers.

    ``in_flight`` is called at each scrape and returns the number of items queued or being scored.
    """

    def __init__(self, in_flight: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        gauge = Gauge(Metric.IN_FLIGHT, "Items queued or being scored.", registry=registry)
        gauge.set_function(in_flight)
        self._requests = Counter(Metric.REQUESTS, "Responses by HTTP status.", ["status"], registry=registry)
        self._items = Counter(
            Metric.ITEMS, "Items by outcome: ok, or the cause of the failure.", ["outcome"], registry=registry
        )
        self._batch = Histogram(Metric.BATCH_SIZE, "Items per batch.", buckets=_SIZE_BUCKETS, registry=registry)
        self._queue = Histogram(
            Metric.QUEUE_SECONDS,
            "Time that a request waits in the queue before each of its batches, in seconds.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._generate = Histogram(
            Metric.GENERATE_SECONDS,
            "Generation time per batch, in seconds.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(Metric.TOKENS, "Number of prompt and completion tokens.", ["kind"], registry=registry)

    def record_response(self, status: int) -> None:
        """Count a response under its HTTP status."""
        self._requests.labels(str(status)).inc()

    def record_outcomes(self, outcomes: Sequence[ScoreOutcome]) -> None:
        """Count the items of a response by outcome."""
        for outcome in outcomes:
            self._items.labels("ok" if outcome.ok else str(outcome.cause)).inc()

    def record_batch(self, outcomes: Sequence[ScoreOutcome], generate_s: float) -> None:
        """Record the size, the generation time and the tokens of a batch."""
        self._batch.observe(len(outcomes))
        self._generate.observe(generate_s)
        for outcome in outcomes:
            if isinstance(outcome, Scored):
                self._tokens.labels("prompt").inc(outcome.prompt_tokens)
                self._tokens.labels("completion").inc(outcome.completion_tokens)

    def record_queueing(self, timings: Sequence[BatchTiming]) -> None:
        """Record how long a request waited in the queue before each of its batches."""
        for timing in timings:
            self._queue.observe(max(0.0, (timing.start_ns - timing.queued_ns) / 1e9))

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
