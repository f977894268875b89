"""The span file, and an unresponsive OTLP collector."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from editr1.telemetry.tracing import JsonLinesExporter


def test_span_file_does_not_exceed_its_maximum_size(tmp_path: Path) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(tmp_path / "spans.jsonl", "s", max_bytes=2000)))
    tracer = provider.get_tracer("t")
    for _ in range(100):
        with tracer.start_as_current_span("request"):
            pass
    provider.shutdown()
    size = (tmp_path / "spans.jsonl").stat().st_size
    assert 2000 <= size < 3000


WORK = """
import sys, time
from pathlib import Path
from editr1.telemetry import configure, flush, span
configure("s", Path(sys.argv[1]) / "spans.jsonl")
began = time.monotonic()
for _ in range(500):
    with span("step"):
        pass
print(time.monotonic() - began)
flush()
"""


def test_unresponsive_collector_does_not_delay_the_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        address = f"http://127.0.0.1:{hole.getsockname()[1]}"
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", WORK, str(tmp_path)],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    assert float(done.stdout.split()[0]) < 5, "the steps were delayed"
    assert time.monotonic() - began < 40, "the exit was delayed"
    assert len((tmp_path / "spans.jsonl").read_text().splitlines()) == 500
