"""The span file, and an unresponsive OTLP collector."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.timeline import gather_spans, timeline_rows
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


SEEDED = """
import random, sys
from pathlib import Path
from editr1.telemetry import configure, span
configure(sys.argv[2], Path(sys.argv[1]))
random.seed(0)
before = random.getstate()
for _ in range(340):
    with span("editr1.step"):
        pass
assert random.getstate() == before, "a span advanced the generator of the training"
"""


def test_processes_with_equal_seeds_record_spans_with_unique_ids_and_all_are_in_the_timeline(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    for service in ("editr1-sft", "editr1-gcpo"):
        subprocess.run([sys.executable, "-c", SEEDED, str(file), service], check=True, timeout=120)
    recorded = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({item["span"] for item in recorded}) == len({item["trace"] for item in recorded}) == 680
    spans = gather_spans(open_store(StoreConfig(url=(tmp_path / "store").as_uri())), "run", file)
    assert Counter(item["service"] for item in spans) == {"editr1-sft": 340, "editr1-gcpo": 340}
    assert next(label for _, label, *_ in timeline_rows(spans)).startswith("editr1.step x 680")


def test_spans_with_equal_ids_of_different_processes_are_all_in_the_timeline(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    lines = [
        {"name": "editr1.step", "service": f"editr1-{stage}", "span": f"{i:016x}", "parent": None,
         "start": float(i + offset), "end": float(i + offset + 1)}
        for stage, offset in (("sft", 0), ("gcpo", 100))
        for i in range(1, 6)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in (*lines, *lines)))
    spans = gather_spans(open_store(StoreConfig(url=(tmp_path / "store").as_uri())), "run", file)
    assert [item["start"] for item in spans] == sorted(line["start"] for line in lines)
