"""Traces, metrics, progress and logs."""

from editr1.telemetry.names import Metric, Span
from editr1.telemetry.progress import Interrupted, Progress, TrainHooks
from editr1.telemetry.tracing import configure, extracted, flush, inject, span, traceparent, untraced

__all__ = [
    "Interrupted",
    "Metric",
    "Progress",
    "Span",
    "TrainHooks",
    "configure",
    "extracted",
    "flush",
    "inject",
    "span",
    "traceparent",
    "untraced",
]
