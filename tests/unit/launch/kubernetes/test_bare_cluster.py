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
from editr1.launch.kubernetes.errors import ClusterError, RequestRefused
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
        ("kubeflow.org/v1", "PyTorchJob", "install Kubeflow's training-operator 1.9"),
        ("keda.sh/v1alpha1", "ScaledObject", "install KEDA 2.19 or newer, or set autoscaling.mode to hpa or none"),
    ],
)
def test_submit_reports_the_missing_operator(bare: Connection, version: str, kind: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        bare.api.dry_run([{"apiVersion": version, "kind": kind, "metadata": {"name": "x"}}])


EDITRUNS = {"resources": [{"name": "editruns", "kind": "EditRun"}]}


def findings(connection: Connection) -> dict[str, Any]:
    return {finding.check: finding for finding in examine(connection)}


def test_trainer_2_is_told_apart_from_training_operator(bare: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "/apis/trainer.kubeflow.org", {"kind": "APIGroup"})
    found = findings(bare)["training-operator (PyTorchJob v1)"]
    assert not found.ok and "Kubeflow Trainer 2 is installed, but it has no PyTorchJobs" in found.detail


def test_unexpected_objects_do_not_end_the_doctor(bare: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "/api/v1/nodes", {"items": [{"status": {"allocatable": {"nvidia.com/gpu": "all"}}}]})
    monkeypatch.setitem(ANSWERS, "/api/v1/namespaces/lab/resourcequotas", {"items": [{"spec": 1}]})
    found = findings(bare)
    assert not found["GPUs"].ok and "not checked: 'all' is not a quantity" in found["GPUs"].detail
    assert not found["quota"].ok and "not checked: KeyError" in found["quota"].detail
    assert "trace collector" in found  # the last check


def test_limits_that_a_quota_demands_are_a_warning(bare: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"limits.memory": "1Ti"}}, "status": {}}
    monkeypatch.setitem(ANSWERS, "/api/v1/namespaces/lab/resourcequotas", {"items": [quota]})
    found = findings(bare)["quota team"]
    assert not found.ok and not found.needed
    assert "set values.resources.limits.memory in the cluster settings" in found.detail
    bare.config.values["resources"] = {"limits": {"memory": "32Gi"}}
    assert findings(bare)["quota team"].ok


def test_quota_is_shown_without_permission_to_read_limit_ranges(
    bare: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"hard": {"limits.memory": "1Ti"}, "used": {"limits.memory": "1Gi"}}
    quota = {"metadata": {"name": "team"}, "spec": {"hard": status["hard"]}, "status": status}
    monkeypatch.setitem(ANSWERS, "/api/v1/namespaces/lab/resourcequotas", {"items": [quota]})
    get_path = bare.api.client.get_path

    def forbidden(path: str, **query: str) -> Any:
        if path.endswith("/limitranges"):
            raise RequestRefused(403, "forbidden")
        return get_path(path, **query)

    monkeypatch.setattr(bare.api.client, "get_path", forbidden)
    found = findings(bare)
    assert found["quota team"].ok and found["quota team"].detail == "limits.memory 1Gi/1Ti"
    assert found["quota"].ok and "no permission to read LimitRanges" in found["quota"].detail


def test_resource_without_an_operator_is_reported(bare: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "/apis/editr1.dev/v1alpha1", EDITRUNS)
    monkeypatch.setitem(ANSWERS, "/apis/apps/v1/deployments", {"items": []})
    found = findings(bare)["operator (EditRun)"]
    assert not found.ok and not found.needed and "no operator watches namespace lab" in found.detail
    assert "editr1 run --no-operator" in found.detail
    object.__setattr__(bare.config, "use_operator", False)
    assert findings(bare)["operator (EditRun)"].ok


def test_collector_outside_of_the_cluster_is_not_looked_up(bare: Connection) -> None:
    for endpoint in ("http://otel.example.com:4318", "http://collector.corp:4318"):
        bare.config.values["telemetry"] = {"endpoint": endpoint}
        found = findings(bare)["trace collector"]
        assert found.ok and "outside the cluster" in found.detail
    bare.config.values["telemetry"] = {"endpoint": "http://jaeger:4318"}
    assert "Service jaeger does not exist in namespace lab" in findings(bare)["trace collector"].detail


def test_pods_with_their_own_identity_need_no_secret(bare: Connection) -> None:
    bare.config.values["store"] = {"secretName": ""}
    assert "pods use their own identity" in findings(bare)["Secret of the store"].detail


def test_namespace_inside_a_pod_is_that_of_the_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from editr1.launch.kubernetes import client

    file = tmp_path / "namespace"
    file.write_text("team-a\n")
    monkeypatch.setattr(client, "SERVICE_ACCOUNT_NAMESPACE", file)
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda _settings: None)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("EDITR1_NAMESPACE", "other")
    assert open_namespace(ClusterConfig()).namespace == "team-a"
    assert open_namespace(ClusterConfig(namespace="team-b")).namespace == "team-b"
    file.unlink()
    assert open_namespace(ClusterConfig()).namespace == "other"


def test_doctor_reports_the_url_of_an_unreachable_cluster(tmp_path: Path) -> None:
    findings = list(examine(connection(tmp_path, "http://127.0.0.1:1")))
    assert len(findings) == 1 and "http://127.0.0.1:1 cannot be reached" in findings[0].detail


def test_missing_kubeconfig_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no cluster is configured: .*set KUBECONFIG"):
        open_namespace(ClusterConfig(kubeconfig=tmp_path / "none"))
