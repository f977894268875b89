"""A stage that runs as in a pod: an unresolved job, the supervisor with the stage process, and the files in the store."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.store import StoreConfig
from editr1.data.tables import read_table
from editr1.data.types import EditCase, PreferencePair
from editr1.runs.find import find_records, open_existing_store
from editr1.runs.live import LiveFiles
from editr1.runs.record import newest_result
from editr1.telemetry.names import StageMetric

SHAPES = {"cases": 30, "candidates": 2, "pairs": 6, "test_pairs": 6, "rl_cases": 6, "test_cases": 6}
PRINCIPLES = {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}


def start(
    folder: Path,
    config: dict[str, Any],
    store: dict[str, str] | None = None,
    retries: int | None = None,
    run: str = "r",
    key: str = "",
    **environment: str,
) -> subprocess.Popen[str]:
    (folder / "work").mkdir(exist_ok=True)
    job = {
        "run": run,
        "stage": "curate",
        "kind": "curate",
        "key": key,
        "seed": 3,
        "store": store or {"url": (folder / "store").as_uri()},
        "config": config,
        "workdir": str(folder / "work"),
        "runtime": {"release": "r", "publish_seconds": 0.2, "retries": retries},
    }
    file = folder / f"{run}.json"
    file.write_text(json.dumps(job))
    process = subprocess.Popen(
        [sys.executable, "-m", "editr1.stages.runtime.pod", "curate"],
        env={
            **os.environ,
            "EDITR1_CONFIG": str(file),
            "EDITR1_POD": "r-master-0",
            "EDITR1_POD_UID": "11112222-x",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def terminate_leftover_processes() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def store_of(folder: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(folder / "store").as_uri()))


def files(folder: Path) -> LiveFiles:
    store = store_of(folder)
    (key,) = {name.split("/")[4] for name in store.list_records("runs/r/stages/curate/")}
    return LiveFiles(store, "r", "curate", key)


def child_of(process: subprocess.Popen[str], folder: Path) -> int:
    """Wait until the stage process writes progress, and return its process id."""
    end = time.monotonic() + 60
    while True:
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == process.pid and list((folder / "work").rglob("progress-*")):
                return int(file.parent.name)
        assert time.monotonic() < end
        time.sleep(0.05)


CONFIG = {"labeller": "shapes", "shapes": SHAPES, "curation": {"num_traces": 2, "principles": PRINCIPLES}}


def test_store_has_result_attempts_and_logs_after_the_pod_has_ended(tmp_path: Path) -> None:
    process = start(tmp_path, CONFIG)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    result = newest_result(store_of(tmp_path), "r", "curate")
    assert result is not None and set(result.outputs) == {"rows", "pairs", "pairs-test", "cases", "cases-test"}
    for name, kind, prefix in (
        ("cases", EditCase, r"rl-"),
        ("cases-test", EditCase, r"test-"),
        ("pairs", PreferencePair, r"pair\d"),
        ("pairs-test", PreferencePair, r"pairtest\d"),
    ):
        folder = store_of(tmp_path).fetch(result.outputs[name], tmp_path / name)
        rows = list(read_table(folder / f"{name}.parquet", kind))
        held = [row.case_id if isinstance(row, EditCase) else row.case.case_id for row in rows]
        assert held and all(re.match(prefix, case) for case in held), (name, held[:3])
    (record,) = find_records(tmp_path, open_existing_store((tmp_path / "store").as_uri()))
    assert (record.state, record.command, record.stages["curate"].outputs) == ("done", "helm install r", result.outputs)
    live = files(tmp_path)
    (attempt,) = live.attempts()
    assert (attempt.id, attempt.exit_code, attempt.reason) == ("r-master-0.11112222", 0, "")
    progress = live.progress()
    assert progress is not None and progress.done == progress.total
    assert "stage curate is done" in output and "stage curate is done" in live.logs()[attempt.id]
    spans = {item["name"]: item for item in live.spans()}
    assert spans["editr1.stage"]["parent"] == spans["editr1.pod"]["span"]


def test_progress_and_metrics_are_exported_to_a_collector(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
                    points = {a.value.string_value for p in metric.gauge.data_points for a in p.attributes}
                    seen.setdefault(metric.name, set()).update(points)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/metrics"
    process = start(tmp_path, CONFIG, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=endpoint)
    output, _ = process.communicate(timeout=120)
    server.shutdown()
    server.server_close()
    assert process.returncode == 0, output
    assert set(seen) == {str(name) for name in StageMetric}
    assert "verify" in seen[StageMetric.DONE] and "requests" in seen[StageMetric.METRIC]


def test_pod_stopped_before_its_stage_starts_exits_with_code_terminated(tmp_path: Path) -> None:
    keys = {"EDITR1_S3_ACCESS_KEY": "a", "EDITR1_S3_SECRET_KEY": "b"}
    process = start(tmp_path, CONFIG, store={"url": "s3://bucket/x", "endpoint": "http://127.0.0.1:1"}, **keys)
    assert process.stdout is not None
    while "waiting for the store" not in (line := process.stdout.readline()):
        assert line, "the pod exited before it waited for the store"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    # Without a handler, SIGTERM would end the process with -15 here, and would be ignored by PID 1 of a container.
    assert process.returncode == 143


def test_invalid_setting_fails_immediately_and_permanently(tmp_path: Path) -> None:
    process = start(tmp_path, {**CONFIG, "labeler": "shapes"})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "did you mean 'labeller'" in output


def test_job_with_the_key_of_other_settings_fails_permanently_and_stores_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, CONFIG, key="b" * 64)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "does not belong to the settings" in output and "uninstall it" in output
    assert not list((tmp_path / "work").iterdir()) and not (tmp_path / "store").exists()


def test_pods_that_share_a_volume_run_their_own_jobs(tmp_path: Path) -> None:
    sizes = {"a": 30, "b": 34}
    pods = {
        run: start(tmp_path, {**CONFIG, "shapes": {**SHAPES, "cases": cases}}, run=run, EDITR1_POD=f"{run}-master-0")
        for run, cases in sizes.items()
    }
    for process in pods.values():
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    results = {run: newest_result(store_of(tmp_path), run, "curate") for run in sizes}
    rows = {run: result.outputs["rows"] for run, result in results.items() if result is not None}
    assert set(rows) == set(sizes) and rows["a"] != rows["b"]
    left = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert not left, "the folder of a pod whose stage succeeded is deleted"


def test_killed_stage_is_retried_until_retries_are_exhausted(tmp_path: Path) -> None:
    big = {**CONFIG, "shapes": {**SHAPES, "cases": 3000}}
    for uid, code in (("a", 137), ("b", 1)):
        process = start(tmp_path, big, EDITR1_POD_UID=uid, retries=1)
        os.kill(child_of(process, tmp_path), signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
    assert "no retries are left (retries: 1)" in output
    assert [item.exit_code for item in files(tmp_path).attempts()] == [137, 137]


def test_stopped_pod_commits_a_checkpoint_first(tmp_path: Path) -> None:
    process = start(tmp_path, {**CONFIG, "shapes": {**SHAPES, "cases": 3000}})
    child_of(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "stopped on request; the next attempt continues" in output
    attempts = files(tmp_path).attempts()
    assert [item.exit_code for item in attempts] == [143]
    assert attempts[0].ended is not None


def test_repeatedly_lost_pod_fails_permanently_with_a_reason(tmp_path: Path) -> None:
    big = {**CONFIG, "shapes": {**SHAPES, "cases": 3000}}
    parent = f"00-{'a' * 32}-{'c' * 16}-01"
    process = start(tmp_path, big, EDITR1_POD_UID="a", retries=0, TRACEPARENT=parent)
    child = child_of(process, tmp_path)
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.communicate(timeout=20)
    process = start(tmp_path, big, EDITR1_POD_UID="b", retries=0, TRACEPARENT=parent)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    attempts = files(tmp_path).attempts()
    assert [item.exit_code for item in attempts] == [None, 1]
    assert "check whether the pod ran out of memory" in attempts[1].reason


def test_reinstalled_release_starts_with_all_retries(tmp_path: Path) -> None:
    big = {**CONFIG, "shapes": {**SHAPES, "cases": 3000}}
    for trace in ("a", "b"):
        parent = f"00-{trace * 32}-{'c' * 16}-01"
        process = start(tmp_path, big, EDITR1_POD_UID=trace, retries=1, TRACEPARENT=parent)
        os.kill(child_of(process, tmp_path), signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 137, output
