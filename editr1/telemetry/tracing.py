"""OpenTelemetry set-up: spans to a JSON-lines file always, to an OTLP collector when one is named.

One trace crosses processes by ``TRACEPARENT`` (W3C Trace Context) in the environment and by HTTP headers. A collector
that is slow or absent never delays a step: OTLP goes through a batching exporter that drops when full.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

Attribute = str | bool | int | float

_tracer = trace.get_tracer("editr1")
_provider: TracerProvider | None = None


def configure(service: str, span_file: Path | None, **resource: str) -> None:
    """Install the tracer provider of this process; another call ends the one before, for a process of several runs.

    ``span_file`` is appended to, one span a line (see :class:`JsonLinesExporter`). OTLP over HTTP is added when
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set. The parent span is taken from ``TRACEPARENT`` when present.
    """
    global _provider, _tracer
    provider = TracerProvider(resource=Resource.create({"service.name": service, **resource}))
    if span_file is not None:
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(span_file, service)))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2)))
    if _provider is None:
        trace.set_tracer_provider(provider)  # may be set once only; what others trace goes to the first
    else:
        _provider.shutdown()
    _provider, _tracer = provider, provider.get_tracer("editr1")
    parent = os.environ.get("TRACEPARENT")
    if parent:
        context.attach(propagate.extract({"traceparent": parent}))


def flush(timeout_seconds: float = 3.0) -> None:
    """Send what is waiting to be sent, for a process that ends without the interpreter's own end."""
    if _provider is not None:
        _provider.force_flush(int(timeout_seconds * 1000))


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[trace.Span]:
    """A span around a block; an exception marks it as failed and goes on."""
    with _tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


@contextmanager
def untraced() -> Iterator[None]:
    """Spans inside, those of servers that are asked included, are not recorded: for the steps between traced ones."""
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
    """Continue the trace named in ``carrier`` (HTTP headers) inside the block."""
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


def traceparent() -> str | None:
    """The current context as a ``TRACEPARENT`` value, for a child process; None outside any span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


class JsonLinesExporter(SpanExporter):
    """Appends ``{"name","service","trace","span","parent","start","end","ok","attributes"}``, times in seconds since the epoch.

    A file that has ``most_bytes`` takes no more: a service lives long, and what it wrote is copied to the store whole.
    """

    def __init__(self, path: Path, service: str, most_bytes: int = 16 << 20) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._most = most_bytes
        self._service = service
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans; a full disk is reported as a failed export, never raised."""
        try:
            with self._lock:
                for item in spans if self._file.tell() < self._most else ():
                    self._file.write(json.dumps(as_record(item, self._service)) + "\n")
                self._file.flush()
        except (OSError, ValueError):
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def as_record(item: ReadableSpan, service: str) -> dict[str, object]:
    """A span as a line of the span file (see :class:`JsonLinesExporter`)."""
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
