"""Spans of what happens to a request outside its own task: queue, batch, generation."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace

from editr1.serving.batcher import Part
from editr1.telemetry import Span

_tracer = trace.get_tracer("editr1")


def record_parts(parent: trace.Span, parts: Sequence[Part]) -> None:
    """Record queue, batch and generate spans below ``parent`` with the times at which they really happened."""
    above = trace.set_span_in_context(parent)
    for part in parts:
        queue = _tracer.start_span(
            Span.REWARD_QUEUE, above, attributes={"items": part.items}, start_time=part.queued_ns
        )
        queue.end(part.start_ns)
        batch = _tracer.start_span(
            Span.REWARD_BATCH,
            above,
            attributes={"items": part.items, "batch_items": part.batch_items},
            start_time=part.start_ns,
        )
        generate = _tracer.start_span(
            Span.REWARD_GENERATE, trace.set_span_in_context(batch), start_time=part.generate_start_ns
        )
        generate.end(part.generate_end_ns)
        batch.end(part.end_ns)
