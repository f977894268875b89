"""The span file of a process that lives long."""

from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from editr1.telemetry.tracing import JsonLinesExporter


def test_a_span_file_takes_no_more_than_it_may_hold(tmp_path: Path) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(tmp_path / "spans.jsonl", "s", most_bytes=2000)))
    tracer = provider.get_tracer("t")
    for _ in range(100):
        with tracer.start_as_current_span("request"):
            pass
    provider.shutdown()
    size = (tmp_path / "spans.jsonl").stat().st_size
    assert 2000 <= size < 3000
