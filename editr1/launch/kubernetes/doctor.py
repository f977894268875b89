"""Checks for ``editr1 doctor``: whether the cluster, the user's permissions and the artifact store are ready for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from editr1.artifacts import StoreError
from editr1.artifacts.probe import probe
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.connect import Connection, cluster_store
from editr1.launch.kubernetes.editruns import EditRuns

NEEDED_PERMISSIONS = (
    ("create", "kubeflow.org", "pytorchjobs"),
    ("create", "apps", "deployments"),
    ("create", "", "configmaps"),
    ("create", "", "services"),
    ("create", "", "serviceaccounts"),
    ("create", "policy", "poddisruptionbudgets"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
    ("list", "", "events"),
    ("delete", "kubeflow.org", "pytorchjobs"),
)
"""Permissions that a run needs, as tuples of verb, API group and resource."""


@dataclass(frozen=True)
class Finding:
    """Result of the check named ``check``. If ``needed`` is True and ``ok`` is False, a run cannot start."""

    check: str
    ok: bool
    detail: str
    needed: bool = True


def examine(connection: Connection) -> Iterator[Finding]:
    """Run all checks, and yield the result of each as soon as it is known."""
    version = _try("API server", lambda: str((connection.api.client.get_path("/version") or {}).get("gitVersion", "")))
    yield version
    if not version.ok:
        return
    yield _jobs(connection)
    yield from _permissions(connection)
    yield _namespace(connection)
    yield from _quota(connection)
    yield _gpus(connection)
    yield _keda(connection)
    yield _operator(connection)
    yield _queue(connection)
    yield from _secret(connection)
    yield from _store(connection)
    yield _collector(connection)


def _try(check: str, action: Callable[[], str], *, needed: bool = True) -> Finding:
    try:
        return Finding(check, True, action(), needed)
    except (ConfigError, StoreError) as error:
        return Finding(check, False, str(error), needed)


def _jobs(connection: Connection) -> Finding:
    check = "training-operator (PyTorchJob v1)"
    if not _serves(connection, "/apis/kubeflow.org/v1", "pytorchjobs"):
        return Finding(check, False, "not installed; install Kubeflow's training-operator 1.9 or newer")
    return Finding(check, True, "kubeflow.org/v1")


def _serves(connection: Connection, group: str, resource: str) -> bool:
    found = connection.api.client.get_path(group)
    return resource in {item["name"] for item in (found or {}).get("resources", ())}


def _permissions(connection: Connection) -> Iterator[Finding]:
    missing = [
        f"{verb} {resource}"
        for verb, group, resource in NEEDED_PERMISSIONS
        if not connection.api.is_allowed(verb, group, resource)
    ]
    where = f"in namespace {connection.api.namespace}"
    detail = (
        f"the current user does not have these permissions {where}: {', '.join(missing)}"
        if missing
        else f"the current user has all permissions that a run needs {where}"
    )
    yield Finding("permissions", not missing, detail)
    kind = "configmaps" if connection.api.target.storage == "configmap" else "secrets"
    allowed = all(connection.api.is_allowed(verb, "", kind) for verb in ("create", "list", "update", "delete"))
    hint = "" if allowed or kind == "configmaps" else "; set helm_storage: configmap in the cluster settings"
    refused = f"the current user needs permission to create, list, update and delete {kind}{hint}"
    yield Finding("Helm releases", allowed, f"stored as {kind}" if allowed else refused)


def _namespace(connection: Connection) -> Finding:
    check = "Pod Security"
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{connection.api.namespace}")
    except ConfigError:
        return Finding(
            check,
            True,
            "not checked, because the current user has no permission to read the namespace; the pods of editr1 comply with "
            "Pod Security level restricted",
            needed=False,
        )
    if found is None:
        return Finding("namespace", False, f"{connection.api.namespace} does not exist; create it")
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "none")
    return Finding(
        check,
        True,
        f"the namespace enforces level {level}; the pods of editr1 comply with Pod Security level restricted",
        needed=False,
    )


def _quota(connection: Connection) -> Iterator[Finding]:
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{connection.api.namespace}/resourcequotas")
    except ConfigError:
        return
    for item in (found or {}).get("items", ()):
        hard, used = item["status"].get("hard", {}), item["status"].get("used", {})
        full = [name for name, most in hard.items() if used.get(name) == most and most != "0"]
        none = [name for name, most in hard.items() if most == "0" and "pods" in name]
        shown = ", ".join(f"{name} {used.get(name, 0)}/{most}" for name, most in hard.items())
        yield Finding(f"quota {item['metadata']['name']}", not full and not none, shown, needed=bool(full or none))


def _gpus(connection: Connection) -> Finding:
    check = "GPUs"
    try:
        nodes = (connection.api.client.get_path("/api/v1/nodes") or {}).get("items", [])
    except ConfigError:
        detail = "not checked, because the current user has no permission to list nodes"
        return Finding(check, True, detail, needed=False)
    count: dict[str, int] = {}
    for node in nodes:
        for name, amount in node["status"].get("allocatable", {}).items():
            if "gpu" in name:
                count[name] = count.get(name, 0) + int(amount)
    total = sum(count.values())
    detail = (
        ", ".join(f"{amount} {name}" for name, amount in count.items())
        or "no GPUs; set the chart value gpus to 0, or add GPU nodes"
    )
    return Finding(check, total > 0, f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}; {detail}", needed=False)


def _keda(connection: Connection) -> Finding:
    found = _serves(connection, "/apis/keda.sh/v1alpha1", "scaledobjects")
    detail = "keda.sh/v1alpha1" if found else "not installed; only the autoscaling modes hpa and none are available"
    return Finding("KEDA", found, detail, needed=False)


def _operator(connection: Connection) -> Finding:
    """Check that the EditRun resource is installed and that the current user has permission to create EditRuns."""
    check = "operator (EditRun)"
    if not EditRuns(connection.api).is_installed():
        detail = "not installed; the command editr1 run starts the stages from this machine instead"
        return Finding(check, False, detail, needed=False)
    allowed = connection.api.is_allowed("create", "editr1.dev", "editruns")
    refused = "the current user has no permission to create EditRuns"
    return Finding(check, allowed, "the operator runs the stages" if allowed else refused)


def _queue(connection: Connection) -> Finding:
    check, wanted = "Kueue queue", _named(connection, "queueName")
    if not wanted:
        return Finding(check, True, "not configured", needed=False)
    if not connection.api.is_allowed("get", "kueue.x-k8s.io", "localqueues"):
        detail = f"{wanted}: not checked, because the current user has no permission to read LocalQueues"
        return Finding(check, True, detail, needed=False)
    path = f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{connection.api.namespace}/localqueues/{wanted}"
    found = connection.api.client.get_path(path)
    missing = f"LocalQueue {wanted} does not exist in the namespace; create it, or change the chart value queueName"
    return Finding(check, found is not None, wanted if found else missing)


def _secret(connection: Connection) -> Iterator[Finding]:
    """Check that the Secret with the credentials of the artifact store exists and has the configured keys."""
    name = _named(connection, "store", "secretName") or "editr1-s3"
    if not connection.api.is_allowed("get", "", "secrets"):
        detail = f"{name}: not checked, because the current user has no permission to read Secrets"
        yield Finding("Secret of the store", True, detail, needed=False)
        return
    found = connection.api.client.get_path(f"/api/v1/namespaces/{connection.api.namespace}/secrets/{name}")
    keys = (
        _named(connection, "store", "accessKey") or "access-key",
        _named(connection, "store", "secretKey") or "secret-key",
    )
    missing = [key for key in keys if key not in ((found or {}).get("data") or {})]
    if found is None:
        yield Finding(
            "Secret of the store",
            False,
            f"{name} does not exist; create it, or set store.secretName to an existing Secret",
        )
    else:
        hint = "set store.accessKey and store.secretKey to the names of its keys"
        detail = f"{name} has no key {missing[0]}; {hint}" if missing else name
        yield Finding("Secret of the store", not missing, detail)


def _store(connection: Connection) -> Iterator[Finding]:
    try:
        store = cluster_store(connection.config)
        for step in probe(store):
            yield Finding(f"store: {step.name}", step.ok, step.detail or store.url)
    except (ConfigError, StoreError) as error:
        yield Finding("store", False, str(error))


def _collector(connection: Connection) -> Finding:
    endpoint = _named(connection, "telemetry", "endpoint")
    if not endpoint:
        return Finding("trace collector", True, "not configured; spans are written to the artifact store", needed=False)
    host = endpoint.split("://", 1)[-1].split(":")[0].split("/")[0]
    service, _, namespace = host.partition(".")
    namespace = namespace.split(".")[0] or connection.api.namespace
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{namespace}/services/{service}")
    except ConfigError:
        found = {}
    detail = endpoint if found is not None else f"{endpoint}: Service {service} does not exist in namespace {namespace}"
    return Finding("trace collector", found is not None, detail, needed=False)


def _named(connection: Connection, *path: str) -> str:
    value: Any = connection.config.values
    for part in path:
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return value if isinstance(value, str) else ""
