"""Export the progress and metrics of a running stage as OpenTelemetry gauges to ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from editr1.telemetry.names import StageMetric

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"


class StageProgress(Protocol):
    """Progress of a stage: its current phase, completed steps and latest metrics."""

    @property
    def phase(self) -> str:
        """Name of the current phase."""

    @property
    def done(self) -> int:
        """Number of completed steps in the phase."""

    @property
    def total(self) -> int:
        """Number of steps in the phase."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the latest step, by name."""


def stage_gauges(current: Callable[[], StageProgress | None], seconds: float, **resource: str) -> Callable[[], None]:
    """Start to export the progress returned by ``current`` every ``seconds`` seconds.

    Return a function that stops the export after exporting the progress one last time. If no endpoint is configured,
    nothing is exported. A slow or unreachable collector does not delay the stage, but metrics may be lost.
    """
    if not os.environ.get(ENDPOINT_VARIABLE):
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=2), export_interval_millis=seconds * 1000)
    provider = MeterProvider([reader], Resource.create({"service.name": "editr1-stage", **resource}))
    meter = provider.get_meter("editr1")

    def steps(attribute: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            progress = current()
            return [] if progress is None else [Observation(getattr(progress, attribute), {"phase": progress.phase})]

        return observe

    def values(_options: CallbackOptions) -> Iterable[Observation]:
        progress = current()
        metrics = {} if progress is None else progress.metrics
        return [Observation(value, {"name": name}) for name, value in metrics.items()]

    meter.create_observable_gauge(
        StageMetric.DONE, [steps("done")], description="Number of completed steps in the current phase."
    )
    meter.create_observable_gauge(
        StageMetric.TOTAL, [steps("total")], description="Total number of steps in the current phase."
    )
    meter.create_observable_gauge(StageMetric.METRIC, [values], description="Metrics of the latest step, by name.")
    return lambda: provider.shutdown(timeout_millis=3000)
