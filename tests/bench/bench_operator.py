"""Measure the operator's reaction time, memory and requests to the API server with many live runs on fake nodes.

    python tests/bench/bench_operator.py [--runs 100 1000]

KUBECONFIG must refer to a cluster without other users, with training-operator and kwok nodes (label type=kwok, 250 pods
each). Each number of runs has a separate namespace, and the results of the last are compared with those of the first.
The S3 server and the operator are local processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.integration.conftest import serve_s3  # noqa: E402

CHANGES = 100
PRINCIPLES = {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}
QUIET_SECONDS = 60.0
HEALTH, METRICS = 18080, 19090


@dataclass
class Measurement:
    """Measurements for one number of runs."""

    runs: int
    start_s: float
    """Seconds from the first apply until every run has the status Running."""
    median_s: float
    """Median seconds from a change of a run's specification until its job is updated."""
    p99_s: float
    memory_mb: float
    """Resident memory at the end."""
    peak_mb: float
    """Peak resident memory."""
    requests_quiet: float
    """Requests per second while all runs are live and nothing changes."""
    requests_busy: float
    """Requests per second while the runs start."""


def main() -> None:
    """Measure each number of runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000], help="numbers of runs to measure")
    counts = parser.parse_args().runs
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "charts/operator/files/editruns.yaml"))
    with tempfile.TemporaryDirectory() as folder, serve_s3(Path(folder)) as server:
        server.client().make_bucket("editr1")
        environment = {
            "EDITR1_S3_ENDPOINT": f"http://{server.endpoint}",
            "EDITR1_S3_ACCESS_KEY": server.access_key,
            "EDITR1_S3_SECRET_KEY": server.secret_key,
        }
        found = [measure(count, Path(folder), environment) for count in counts]
    print(
        f"{'runs':>6} {'all running':>12} {'median':>8} {'p99':>8} {'memory':>9} {'peak':>9} {'requests/s quiet':>17} {'starting':>9}"
    )
    for item in found:
        print(
            f"{item.runs:>6} {item.start_s:>10.1f} s {item.median_s:>6.2f} s {item.p99_s:>6.2f} s "
            f"{item.memory_mb:>6.0f} MB {item.peak_mb:>6.0f} MB {item.requests_quiet:>17.2f} {item.requests_busy:>9.1f}"
        )
    first, last = found[0], found[-1]
    print(
        f"ratio {last.runs} to {first.runs} runs: median {last.median_s / first.median_s:.2f}, "
        f"memory {last.memory_mb / first.memory_mb:.2f}, "
        f"requests quiet {last.requests_quiet / max(first.requests_quiet, 0.01):.2f}"
    )


def measure(count: int, folder: Path, environment: dict[str, str]) -> Measurement:
    """Start ``count`` runs, measure requests while nothing changes, then suspend or resume some runs one after the other."""
    namespace = f"bench-{count}"
    kubectl("create", "namespace", namespace)
    cluster = folder / f"{namespace}.yaml"
    cluster.write_text(yaml.safe_dump(settings()))
    operator = start_operator(namespace, cluster, environment, folder)
    try:
        start = time.monotonic()
        requests_before = requests()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: apply_runs(namespace, range(n, min(n + 50, count))), range(0, count, 50)))
        while running(namespace) < count:
            time.sleep(1)
            assert time.monotonic() - start < 1800, f"{running(namespace)} of {count} runs are running"
        start_s = time.monotonic() - start
        busy = (requests() - requests_before) / start_s
        time.sleep(10)
        before = requests()
        time.sleep(QUIET_SECONDS)
        quiet = (requests() - before) / QUIET_SECONDS
        reactions = sorted(measure_reaction(namespace, n % count) for n in range(CHANGES))
        process_status = Path(f"/proc/{operator.pid}/status").read_text()
        memory, peak = (int(re.search(rf"{name}:\s+(\d+)", process_status)[1]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
    finally:
        operator.terminate()
        operator.wait(60)
        kubectl("delete", "namespace", namespace)
    p99 = reactions[int(len(reactions) * 0.99) - 1]
    return Measurement(count, start_s, statistics.median(reactions), p99, memory, peak, quiet, busy)


def settings() -> dict[str, object]:
    """Cluster settings that put every pod on a fake node."""
    return {
        "registry": "docker.io/editr1",
        "resolve_images": False,
        "values": {
            "store": {"url": "s3://editr1/bench"},
            "gpus": 0,
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        },
    }


def apply_runs(namespace: str, numbers: range) -> None:
    """Create one EditRun with a single stage for each number."""
    runs = [
        {
            "apiVersion": "editr1.dev/v1alpha1",
            "kind": "EditRun",
            "metadata": {"name": f"run-{number}", "namespace": namespace},
            "spec": {
                "seed": number,
                "stages": [
                    {
                        "name": "curate",
                        "kind": "curate",
                        "config": {"labeller": "shapes", "curation": {"principles": PRINCIPLES}},
                    }
                ],
            },
        }
        for number in numbers
    ]
    kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(runs))


def running(namespace: str) -> int:
    """Return the number of runs that are running."""
    text = kubectl("-n", namespace, "get", "editruns", "-o", "jsonpath={.items[*].status.reason}")
    return text.split().count("Running")


def measure_reaction(namespace: str, number: int) -> float:
    """Return the seconds from suspending (or resuming) a run until a watch reports that its job is suspended (or resumed)."""
    name = f"run-{number}"
    suspended = json.loads(kubectl("-n", namespace, "get", "editrun", name, "-o", "json"))["spec"].get("suspend", False)
    path = ["-n", namespace, "get", "pytorchjob", f"{name}-curate", "-o", 'jsonpath={.spec.runPolicy.suspend}{"\\n"}']
    watch = subprocess.Popen(["kubectl", *path, "--watch"], stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    watch.stdout.readline()
    start = time.monotonic()
    kubectl(
        "-n",
        namespace,
        "patch",
        "editrun",
        name,
        "--type=merge",
        "-p",
        json.dumps({"spec": {"suspend": not suspended}}),
    )
    wanted = str(not suspended).lower()
    while watch.stdout.readline().strip() != wanted:
        assert time.monotonic() - start < 120
    took = time.monotonic() - start
    watch.terminate()
    watch.wait()
    return took


def start_operator(namespace: str, cluster: Path, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the operator and wait until it is healthy."""
    settings = {
        "EDITR1_OPERATOR_NAMESPACES": namespace,
        "EDITR1_OPERATOR_CLUSTER_FILE": str(cluster),
        "EDITR1_OPERATOR_LIVENESS_PORT": str(HEALTH),
        "EDITR1_OPERATOR_METRICS_PORT": str(METRICS),
        "MALLOC_ARENA_MAX": "2",  # as in images/operator
        "GOGC": "40",
    }
    log = (folder / f"{namespace}.log").open("wb")
    command = [sys.executable, "-m", "editr1_operator"]
    process = subprocess.Popen(command, env={**os.environ, **environment, **settings}, stdout=log, stderr=log)
    for _ in range(120):
        if process.poll() is not None:
            raise SystemExit(
                f"the operator exited with code {process.returncode}: {(folder / f'{namespace}.log').read_text()}"
            )
        try:
            httpx.get(f"http://127.0.0.1:{HEALTH}/healthz", timeout=2)
            return process
        except httpx.HTTPError:
            time.sleep(0.5)
    process.kill()
    raise SystemExit(f"the operator is not healthy after 60 s: {(folder / f'{namespace}.log').read_text()}")


def requests() -> float:
    """Return the number of requests to the API server so far, without watches."""
    text = httpx.get(f"http://127.0.0.1:{METRICS}/metrics", timeout=10).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if re.match(r"editr1_operator_api_requests_total", line)
    )


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return its standard output."""
    done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
