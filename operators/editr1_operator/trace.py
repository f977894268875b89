"""Create the OpenTelemetry trace of a run.

The root span represents the run. Its children are the spans of the attempts, and their children are the spans of the
pods. Trace and span IDs are derived from the run's UID, so a restarted operator creates the same spans again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from editr1.launch.kubernetes.run_status import AttemptStatus, RunState, RunStatus, StageStatus
from editr1.telemetry import Span

SERVICE = "editr1-operator"


def traceparent(uid: str, stage: str = "", attempt: int = 0) -> str:
    """Return the W3C traceparent of an attempt's span, or of the run's span if ``stage`` is empty. Attempts are counted from 1."""
    context = _context(uid, stage, attempt)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def spans_of(uid: str, namespace: str, run: str, status: RunStatus) -> list[ReadableSpan]:
    """Return the spans of all attempts that have ended, and of the run if it has ended."""
    resource = Resource.create({"service.name": SERVICE, "editr1.run": run, "k8s.namespace.name": namespace})
    spans = [span for stage in status.stages for span in _attempts(uid, stage, resource)]
    if status.ended is not None and status.started is not None:
        spans.append(
            ReadableSpan(
                name=Span.RUN,
                context=_context(uid),
                resource=resource,
                attributes={"run": run},
                kind=SpanKind.INTERNAL,
                start_time=_nanoseconds(status.started),
                end_time=_nanoseconds(status.ended),
                status=Status(StatusCode.ERROR if status.state is RunState.FAILED else StatusCode.OK),
            )
        )
    return spans


def _attempts(uid: str, stage: StageStatus, resource: Resource) -> Iterator[ReadableSpan]:
    for number, attempt in enumerate(stage.attempts, 1):
        if attempt.ended is None:
            continue
        yield ReadableSpan(
            name=Span.ATTEMPT,
            context=_context(uid, stage.name, number),
            parent=_context(uid),
            resource=resource,
            attributes=_attributes(stage, number, attempt),
            links=[Link(_context(uid, stage.name, number - 1))] if number > 1 else (),
            kind=SpanKind.INTERNAL,
            start_time=_nanoseconds(attempt.started),
            end_time=_nanoseconds(attempt.ended),
            status=Status(StatusCode.ERROR if attempt.exit_code else StatusCode.OK),
        )


def _attributes(stage: StageStatus, number: int, attempt: AttemptStatus) -> dict[str, str | int]:
    found: dict[str, str | int] = {"stage": stage.name, "attempt": number}
    if attempt.exit_code is not None:
        found["exit_code"] = attempt.exit_code
    if attempt.reason:
        found["reason"] = attempt.reason
    return found


class Exporter:
    """Background thread that sends spans to the collector at ``OTEL_EXPORTER_OTLP_ENDPOINT``, if this variable is set."""

    def __init__(self) -> None:
        self._processor: BatchSpanProcessor | None = None
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._processor = BatchSpanProcessor(OTLPSpanExporter(timeout=2))

    def send(self, before: list[ReadableSpan], after: list[ReadableSpan]) -> None:
        """Queue the spans in the list ``after`` that are not in the list ``before``."""
        if self._processor is None:
            return
        known = {span.context.span_id for span in before if span.context}
        for span in after:
            if span.context and span.context.span_id not in known:
                self._processor.on_end(span)

    def close(self) -> None:
        """Send the spans that are still queued, and stop the thread."""
        if self._processor is not None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]


def _context(uid: str, stage: str = "", attempt: int = 0) -> SpanContext:
    trace = hashlib.sha256(uid.encode()).digest()
    span = hashlib.sha256(f"{uid}/{stage}/{attempt}".encode()).digest()
    return SpanContext(
        trace_id=int.from_bytes(trace[:16], "big"),
        span_id=int.from_bytes(span[:8], "big"),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _nanoseconds(t: float) -> int:
    return int(t * 1e9)
