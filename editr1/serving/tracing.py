"""OpenTelemetry spans of the queueing, batching and generation of a request.

These phases run outside the asyncio task of the request. Their spans are therefore created afterwards, from recorded times.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace

from editr1.serving.batcher import BatchTiming
from editr1.telemetry import Span

_tracer = trace.get_tracer("editr1")


def record_batch_spans(parent: trace.Span, timings: Sequence[BatchTiming]) -> None:
    """Create the spans of each batch of a request under ``parent``, the span of the request."""
    context = trace.set_span_in_context(parent)
    for timing in timings:
        queue = _tracer.start_span(
            Span.REWARD_QUEUE, context, attributes={"items": timing.items}, start_time=timing.queued_ns
        )
        queue.end(timing.start_ns)
        batch = _tracer.start_span(
            Span.REWARD_BATCH,
            context,
            attributes={"items": timing.items, "batch_items": timing.batch_items},
            start_time=timing.start_ns,
        )
        generate = _tracer.start_span(
            Span.REWARD_GENERATE, trace.set_span_in_context(batch), start_time=timing.generate_start_ns
        )
        generate.end(timing.generate_end_ns)
        batch.end(timing.end_ns)
