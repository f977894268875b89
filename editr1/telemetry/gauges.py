"""Figures of a running stage as OpenTelemetry gauges, sent where ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` says."""

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


class Figures(Protocol):
    """What is shown of a stage at one moment."""

    @property
    def phase(self) -> str:
        """The phase's name."""

    @property
    def done(self) -> int:
        """Steps behind."""

    @property
    def total(self) -> int:
        """All steps of the phase."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The step's figures by name."""


def stage_gauges(look: Callable[[], Figures | None], seconds: float, **resource: str) -> Callable[[], None]:
    """Send what ``look`` gives every ``seconds``; returns what sends it a last time and ends it.

    Without an endpoint nothing is set up. A collector that is slow or gone costs nothing but its own figures.
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
            figures = look()
            return [] if figures is None else [Observation(getattr(figures, attribute), {"phase": figures.phase})]

        return observe

    def values(_options: CallbackOptions) -> Iterable[Observation]:
        figures = look()
        shown = {} if figures is None else figures.metrics
        return [Observation(value, {"name": name}) for name, value in shown.items()]

    meter.create_observable_gauge(StageMetric.DONE, [steps("done")], description="Steps of the phase that are behind.")
    meter.create_observable_gauge(StageMetric.TOTAL, [steps("total")], description="Steps of the phase.")
    meter.create_observable_gauge(StageMetric.FIGURE, [values], description="Figures of the last step, by name.")
    return lambda: provider.shutdown(timeout_millis=3000)
