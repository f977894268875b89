"""Spans of the queueing, batching and generation of a request, which happen outside the request's own task."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace

from editr1.serving.batcher import BatchShare
from editr1.telemetry import Span

_tracer = trace.get_tracer("editr1")


def record_batch_spans(parent: trace.Span, shares: Sequence[BatchShare]) -> None:
    """Record queue, batch and generate spans below ``parent`` with their actual start and end times."""
    context = trace.set_span_in_context(parent)
    for share in shares:
        queue = _tracer.start_span(
            Span.REWARD_QUEUE, context, attributes={"items": share.items}, start_time=share.queued_ns
        )
        queue.end(share.start_ns)
        batch = _tracer.start_span(
            Span.REWARD_BATCH,
            context,
            attributes={"items": share.items, "batch_items": share.batch_items},
            start_time=share.start_ns,
        )
        generate = _tracer.start_span(
            Span.REWARD_GENERATE, trace.set_span_in_context(batch), start_time=share.generate_start_ns
        )
        generate.end(share.generate_end_ns)
        batch.end(share.end_ns)
