"""Several releases of the operator's chart in one cluster, installed by Helm with the responses of an API server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.launch.kubernetes.helm import Helm, chart_folder

CRD = "editruns.editr1.dev"
KINDS = {
    "/api/v1": {"configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount"},
    "/apis/apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    "/apis/apps/v1": {"deployments": "Deployment"},
    "/apis/rbac.authorization.k8s.io/v1": {
        **{"roles": "Role", "rolebindings": "RoleBinding"},
        **{"clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding"},
    },
}
CLUSTER_WIDE = ("CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding")


def discovery() -> dict[str, Any]:
    """Return the responses of an API server from which Helm learns the kinds of the cluster."""
    found: dict[str, Any] = {
        "/version": {"gitVersion": "v1.34.0", "major": "1", "minor": "34"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    groups = []
    for path, kinds in KINDS.items():
        resources = [
            {"name": name, "kind": kind, "namespaced": kind not in CLUSTER_WIDE, "verbs": ["get", "create", "patch"]}
            for name, kind in kinds.items()
        ]
        group = path.removeprefix("/apis/").removeprefix("/api/")
        found[path] = {"kind": "APIResourceList", "groupVersion": group, "resources": resources}
        if path.startswith("/apis/"):
            version = {"groupVersion": group, "version": "v1"}
            groups.append({"name": group.split("/")[0], "versions": [version], "preferredVersion": version})
    return found | {"/apis": {"kind": "APIGroupList", "groups": groups}}


@pytest.fixture
def api() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kubeconfig of an API server, and its responses by path. It has no objects yet."""
    answers = discovery()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            data = json.dumps(answers.get(path, missing)).encode()
            if path == "/openapi/v2":  # An empty document in the protobuf format: no kind has a schema.
                data = b""
            self.send_response(200 if path in answers or not data else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    yield yaml.safe_dump(config), answers
    server.shutdown()
    server.server_close()


def install(api: tuple[str, dict[str, Any]], release: str, namespace: str, **values: Any) -> tuple[list[Any], str]:
    """Return the objects and the notes of ``helm install --dry-run=server`` of the operator's chart."""
    import helm_python

    options = {"namespace": namespace, "kubeconfig_content": api[0], "storage_driver": "memory"}
    with helm_python.Config(**options) as config:
        made = config.install(chart_folder("operator"), release, values, namespace=namespace, dry_run="server")
    return [item for item in yaml.safe_load_all(made["manifest"]) if item], made["notes"]


def existing(owner: tuple[str, str] | None) -> dict[str, Any]:
    """Return the CRD in the cluster, as Helm's release ``owner`` (name and namespace) or kubectl created it."""
    meta: dict[str, Any] = {"name": CRD}
    if owner:
        keys = ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace")
        meta |= {"annotations": dict(zip(keys, owner, strict=True))}
        meta |= {"labels": {"app.kubernetes.io/managed-by": "Helm"}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta}


@pytest.mark.parametrize(
    ("owner", "belongs_to"),
    [
        (("first", "team-a"), "release first in namespace team-a"),
        (("operator", "team-a"), "release operator in namespace team-a"),
        (("first", "team-b"), "release first in namespace team-b"),
        (None, "no Helm release"),
    ],
)
def test_crd_of_another_owner_is_left_unchanged(
    api: tuple[str, dict[str, Any]], owner: tuple[str, str] | None, belongs_to: str
) -> None:
    api[1][f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}"] = existing(owner)
    objects, notes = install(api, "operator", "team-b")
    assert "Deployment" in [item["kind"] for item in objects]
    assert "CustomResourceDefinition" not in [item["kind"] for item in objects]
    assert f"already exists in the cluster and belongs to {belongs_to}" in notes
    assert "kubectl apply --server-side --force-conflicts -f charts/operator/files/editruns.yaml" in notes


@pytest.mark.parametrize("owner", [None, ("operator", "team-b")], ids=["new", "own"])
def test_crd_is_installed_and_updated_by_its_owner(api: tuple[str, dict[str, Any]], owner: Any) -> None:
    if owner:
        api[1][f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}"] = existing(owner)
    objects, notes = install(api, "operator", "team-b")
    (crd,) = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "already exists" not in notes


@pytest.mark.parametrize("values", [{"clusterWide": True}, {"namespaces": ["shared"]}])
def test_releases_share_no_object_outside_their_namespaces(values: dict[str, Any]) -> None:
    """Also if the releases have the same name, or name and namespace joined with a hyphen are identical."""
    names: list[tuple[str, str | None, str]] = []
    releases = [("op", "a"), ("op", "b"), ("op-a", "b"), ("op", "a-b"), ("op.a", "b")]
    for release, namespace in releases:
        for item in Helm().render("operator", release, namespace, {"crds": False, **values}):
            where = item["metadata"].get("namespace")
            if where or item["kind"] in CLUSTER_WIDE:
                name = item["metadata"]["name"]
                assert release in name and namespace in name
                names.append((item["kind"], where, name))
            if item["kind"].endswith("Binding"):
                assert item["roleRef"]["name"] == item["metadata"]["name"]
                assert item["subjects"] == [{"kind": "ServiceAccount", "name": release, "namespace": namespace}]
    assert len(names) == len(set(names)) == 2 * len(releases)


def test_helm_template_prints_the_definition_without_a_cluster() -> None:
    kinds = [item["kind"] for item in Helm().render("operator", "op", "a", {})]
    assert "CustomResourceDefinition" in kinds
    assert (Path(chart_folder("operator")) / "files/editruns.yaml").is_file()
