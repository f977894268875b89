"""Client and doctor on a cluster without training-operator and KEDA, and on an unreachable cluster."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.connect import Connection
from editr1.launch.kubernetes.doctor import examine
from editr1.launch.kubernetes.errors import ClusterError
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.namespace import open_namespace

ANSWERS: dict[str, Any] = {
    "/version": {"gitVersion": "v1.34.0", "major": "1", "minor": "34"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {"kind": "APIGroupList", "groups": []},
    "/api/v1/nodes": {"items": [{"status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": "8"}}}]},
    "/api/v1/namespaces/lab": {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    "/api/v1/namespaces/lab/resourcequotas": {"items": []},
    "/api/v1/namespaces/lab/secrets/editr1-s3": {"data": {"access-key": "eA=="}},
}


class Server(BaseHTTPRequestHandler):
    """An API server without optional components that allows every request."""

    def do_GET(self) -> None:
        found = ANSWERS.get(self.path.split("?")[0])
        self.answer(200 if found is not None else 404, found or {"kind": "Status", "message": "not found"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, {"spec": {"resourceAttributes": {}}, "status": {"allowed": True}})

    def do_PATCH(self) -> None:
        """Respond as for a kind that is not installed."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(404, "404 page not found")

    def answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return None


def connection(folder: Path, url: str) -> Connection:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    cluster = ClusterConfig(kubeconfig=folder / "kubeconfig", helm_storage="configmap")
    return Connection(cluster, open_namespace(cluster), Helm())


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Connection]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield connection(tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


def test_doctor_reports_missing_components(bare: Connection) -> None:
    found = {finding.check: finding for finding in examine(bare)}
    operator = found["training-operator (PyTorchJob v1)"]
    assert not operator.ok and operator.needed and "install Kubeflow's training-operator" in operator.detail
    keda = found["KEDA"]
    assert not keda.ok and not keda.needed and "only the autoscaling modes hpa and none are available" in keda.detail
    assert found["GPUs"].detail == "1 node; 8 nvidia.com/gpu"
    assert found["Pod Security"].detail.startswith("the namespace enforces level restricted")
    assert (
        found["Secret of the store"].detail
        == "editr1-s3 has no key secret-key; set store.accessKey and store.secretKey to the names of its keys"
    )
    assert "no artifact store is configured" in found["store"].detail


@pytest.mark.parametrize(
    ("version", "kind", "message"),
    [
        ("kubeflow.org/v1", "PyTorchJob", "install Kubeflow's training-operator 1.9 or newer"),
        ("keda.sh/v1alpha1", "ScaledObject", "install KEDA 2.19 or newer, or set autoscaling.mode to hpa or none"),
    ],
)
def test_submit_reports_the_missing_operator(bare: Connection, version: str, kind: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        bare.api.dry_run([{"apiVersion": version, "kind": kind, "metadata": {"name": "x"}}])


def test_doctor_reports_the_url_of_an_unreachable_cluster(tmp_path: Path) -> None:
    findings = list(examine(connection(tmp_path, "http://127.0.0.1:1")))
    assert len(findings) == 1 and "http://127.0.0.1:1 cannot be reached" in findings[0].detail


def test_missing_kubeconfig_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no cluster is configured: .*set KUBECONFIG"):
        open_namespace(ClusterConfig(kubeconfig=tmp_path / "none"))
