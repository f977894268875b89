"""Observability of runs: OpenTelemetry spans and metrics, progress files, and logging."""

from editr1.telemetry.names import Metric, Span
from editr1.telemetry.progress import Interrupted, Progress, TrainHooks, json_lines, progress_lines
from editr1.telemetry.tracing import as_record, configure, extracted, flush, inject, span, traceparent, untraced

__all__ = [
    "Interrupted",
    "Metric",
    "Progress",
    "Span",
    "TrainHooks",
    "as_record",
    "configure",
    "extracted",
    "flush",
    "inject",
    "json_lines",
    "progress_lines",
    "span",
    "traceparent",
    "untraced",
]
