"""Fixtures of the cluster tests: a namespace with Pod Security level "restricted" and an S3 server.

The tests need KUBECONFIG, kubectl and helm on PATH, and the project's images. They are skipped if KUBECONFIG is not set.

    EDITR1_TEST_REGISTRY   prefix of the image names (default docker.io/editr1)
    EDITR1_TEST_TAG        tag of the images (default dev)
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.store import StoreConfig

ROOT = Path(__file__).parents[2]
REGISTRY = os.environ.get("EDITR1_TEST_REGISTRY", "docker.io/editr1")
TAG = os.environ.get("EDITR1_TEST_TAG", "dev")
SMALL_CURATION = {
    "labeller": "shapes",
    "shapes": {"cases": 40, "candidates": 3, "pairs": 12, "test_pairs": 8, "rl_cases": 8, "test_cases": 8},
    "curation": {"num_traces": 2, "principles": {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.cluster)
            if not os.environ.get("KUBECONFIG"):
                item.add_marker(pytest.mark.skip(reason="needs a Kubernetes cluster: set KUBECONFIG"))


def until(what: str, test: Callable[[], Any], seconds: float = 120, every: float = 1.0) -> Any:
    """Call ``test`` until it returns a true value, and return that value; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        found = test()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {seconds} s; last: {found!r}"
        time.sleep(every)


@dataclass
class Lab:
    """A test namespace with an S3 bucket, and methods that run the commands of a user."""

    namespace: str
    folder: Path
    environment: dict[str, str]
    settings: dict[str, Any]
    forwards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments], capture_output=True, text=True, input=stdin, timeout=300
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def editr1(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "editr1.cli.main", *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            env={**self.environment, **environment},
            cwd=ROOT,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def wait_established(self, crd: str) -> None:
        """Wait until the CRD is established. ``kubectl wait`` would fail while the CRD has no status yet."""

        def served() -> bool:
            conditions = self.get("crd", crd).get("status", {}).get("conditions") or ()
            return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)

        until(f"{crd} is established", served, 60, 0.2)

    def file(self, name: str, values: dict[str, Any]) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump(values))
        return str(path)

    def submit(self, stage: str, name: str, values: dict[str, Any], *more: str, check: bool = True) -> str:
        file = self.file(f"{name}.yaml", values)
        done = self.editr1("submit", stage, "-f", file, "--name", name, *more, check=check)
        return done.stdout + done.stderr

    def store(self) -> ArtifactStore:
        config = StoreConfig(
            url=self.settings["values"]["store"]["url"],
            endpoint=self.settings["store_endpoint"],
            access_key_env="EDITR1_S3_ACCESS_KEY",
        )
        os.environ.update({k: v for k, v in self.environment.items() if k.startswith("EDITR1_S3_")})
        return open_store(config)

    def forward(self, target: str, port: int, namespace: str | None = None) -> int:
        """Forward a local port to a port of a service, and return the local port."""
        local = _free_port()
        command = ["kubectl", "-n", namespace or self.namespace, "port-forward", target, f"{local}:{port}"]
        self.forwards.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until(f"port-forward to {target}", lambda: _open(local), 30, 0.2)
        return local

    def release_objects(self) -> list[str]:
        """Return the names of all objects of Edit-R1 releases in the namespace."""
        kinds = (
            "pytorchjobs,deployments,pods,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,hpa"
        )
        found = self.kubectl("get", kinds, "-l", "app.kubernetes.io/part-of=editr1", "-o", "name").split()
        scaled = self.kubectl("get", "scaledobjects", "-o", "name", check=False).split()
        stored = self.kubectl("get", "configmaps,secrets", "-l", "owner=helm", "-o", "name").split()
        return found + scaled + stored


def make_lab(folder: Path) -> Iterator[Lab]:
    """Create a namespace with an S3 server and its Secret, and delete the namespace at the end."""
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not on PATH")
    name = f"editr1-test-{secrets.token_hex(3)}"
    (namespace,) = yaml.safe_load_all((ROOT / "manifests/namespace.yaml").read_text())
    namespace["metadata"]["name"] = name
    secret = secrets.token_hex(20)
    settings: dict[str, Any] = {
        "namespace": name,
        "helm_storage": "configmap",
        "registry": REGISTRY,
        "resolve_images": False,  # the images might not be in any registry
        "values": {
            "image": {"tag": TAG},
            "store": {"url": "s3://editr1/runs", "endpoint": f"http://s3.{name}.svc:8333"},
            "gpus": 0,
            "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
            "scratch": {"size": "2Gi"},
            "sharedMemory": "256Mi",
            "telemetry": {"publishIntervalSeconds": 1},
        },
    }
    lab = Lab(name, folder, {}, settings)
    subprocess.run(["kubectl", "apply", "-f", "-"], input=yaml.safe_dump(namespace), text=True, check=True)
    try:
        keys = [f"--from-literal=access-key={name}", f"--from-literal=secret-key={secret}"]
        lab.kubectl("create", "secret", "generic", "editr1-s3", *keys)
        lab.kubectl("apply", "-f", str(ROOT / "manifests/dev/s3.yaml"), "-f", str(ROOT / "manifests/rbac.yaml"))
        lab.kubectl("rollout", "status", "deployment/s3", "--timeout", "120s")
        settings["store_endpoint"] = f"http://127.0.0.1:{lab.forward('service/s3', 8333)}"
        lab.environment = {
            **os.environ,
            "EDITR1_CLUSTER_FILE": lab.file("cluster.yaml", settings),
            "EDITR1_S3_ACCESS_KEY": name,
            "EDITR1_S3_SECRET_KEY": secret,
            "EDITR1_S3_ENDPOINT": settings["store_endpoint"],
        }
        yield lab
    finally:
        for process in lab.forwards:
            process.terminate()
            process.wait(10)
        subprocess.run(["kubectl", "delete", "namespace", name, "--wait=false"], check=False)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield from make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def curated(lab: Lab) -> str:
    """Return the name of a completed curate run whose outputs are the inputs of other tests."""
    lab.submit("curate", "curated", {"config": SMALL_CURATION}, "--follow")
    return "curated"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
