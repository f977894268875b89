"""OpenTelemetry tracing: spans go to a JSON-lines file, and to an OTLP collector if one is configured.

The trace context is passed to other processes in the environment variable ``TRACEPARENT`` (W3C Trace Context), and in
HTTP headers. A slow or unreachable collector does not delay training: spans are sent in the background and dropped
when the queue is full.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator

Attribute = str | bool | int | float

_tracer = trace.get_tracer("editr1")
_provider: TracerProvider | None = None


def configure(service: str, span_file: Path | None, **resource: str) -> None:
    """Install the tracer provider of this process. A provider from an earlier call is shut down.

    Spans are appended to ``span_file``, one per line (see :class:`JsonLinesExporter`), and sent by OTLP over HTTP if
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set. The parent span is read from ``TRACEPARENT`` if it is set.
    """
    global _provider, _tracer
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, **resource}), id_generator=SystemIdGenerator()
    )
    if span_file is not None:
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(span_file, service)))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2)))
    if _provider is None:
        trace.set_tracer_provider(
            provider
        )  # The provider can only be set once. Spans of other libraries go to the first provider.
    else:
        _provider.shutdown()
    _provider, _tracer = provider, provider.get_tracer("editr1")
    parent = os.environ.get("TRACEPARENT")
    if parent:
        context.attach(propagate.extract({"traceparent": parent}))


def flush(timeout_seconds: float = 3.0) -> None:
    """Export all pending spans. Call this before a process exits without a regular shutdown of the interpreter."""
    if _provider is not None:
        _provider.force_flush(int(timeout_seconds * 1000))


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[trace.Span]:
    """Context manager that records a span around a block. An exception marks the span as failed and propagates."""
    with _tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


@contextmanager
def untraced() -> Iterator[None]:
    """Context manager that disables spans inside the block, both in this process and in downstream services.

    It is used for GRPO iterations that are not traced.
    """
    now = trace.get_current_span().get_span_context()
    if not now.is_valid:
        yield
        return
    quiet = trace.SpanContext(now.trace_id, now.span_id, is_remote=False, trace_flags=trace.TraceFlags(0))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(quiet)))
    try:
        yield
    finally:
        context.detach(token)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the current trace context into HTTP headers."""
    propagate.inject(carrier)


@contextmanager
def extracted(carrier: Mapping[str, str]) -> Iterator[None]:
    """Context manager that continues the trace whose context is in the HTTP headers ``carrier``."""
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


def traceparent() -> str | None:
    """Return the current trace context as a ``TRACEPARENT`` value for a child process, or None outside of a span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


class SystemIdGenerator(IdGenerator):
    """Generator of trace ids and span ids that uses the operating system's source of randomness.

    OpenTelemetry's default generator uses the module ``random``, which every trainer seeds. With it, all processes of
    a run would draw the same ids, and drawing an id would change the random state of the training.
    """

    def generate_span_id(self) -> int:
        """Return a random 64-bit id other than 0, which OpenTelemetry reserves for "no span"."""
        return secrets.randbelow((1 << 64) - 1) + 1

    def generate_trace_id(self) -> int:
        """Return a random 128-bit id other than 0, which OpenTelemetry reserves for "no trace"."""
        return secrets.randbelow((1 << 128) - 1) + 1

    def is_trace_id_random(self) -> bool:
        """Return True: all bits of a trace id are random."""
        return True


class JsonLinesExporter(SpanExporter):
    """Exporter that appends spans to a file as JSON lines (see :func:`as_record`).

    Appending stops when the file reaches ``max_bytes``, because services run for a long time and the whole file is copied to
    the artifact store.
    """

    def __init__(self, path: Path, service: str, max_bytes: int = 16 << 20) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._max_bytes = max_bytes
        self._service = service
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append the spans. If writing fails, for example because the disk is full, return FAILURE instead of raising."""
        try:
            with self._lock:
                for item in spans if self._file.tell() < self._max_bytes else ():
                    self._file.write(json.dumps(as_record(item, self._service)) + "\n")
                self._file.flush()
        except (OSError, ValueError):
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file.

        If this fails, for example because the disk is full, spans are lost, but no exception is raised.
        """
        with suppress(OSError):
            self._file.close()


def as_record(item: ReadableSpan, service: str) -> dict[str, object]:
    """Convert a span to a dictionary with its name, hexadecimal ids, attributes, and start and end in seconds since the epoch."""
    ctx = item.get_span_context()
    assert ctx is not None
    return {
        "name": item.name,
        "service": service,
        "trace": format(ctx.trace_id, "032x"),
        "span": format(ctx.span_id, "016x"),
        "parent": format(item.parent.span_id, "016x") if item.parent else None,
        "start": (item.start_time or 0) / 1e9,
        "end": (item.end_time or 0) / 1e9,
        "ok": item.status.status_code is not trace.StatusCode.ERROR,
        "attributes": dict(item.attributes or {}),
    }
