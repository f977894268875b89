"""Checks for ``editr1 doctor``: whether the cluster, the user's permissions and the artifact store are ready for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from editr1.artifacts import StoreError
from editr1.artifacts.probe import probe
from editr1.config.loader import ConfigError
from editr1.errors import Editr1Error
from editr1.launch.kubernetes.capacity import demanded, devices, exhausted, lacking
from editr1.launch.kubernetes.collector import service_of
from editr1.launch.kubernetes.connect import Connection, cluster_store
from editr1.launch.kubernetes.editruns import EditRuns
from editr1.launch.kubernetes.operator_presence import presence
from editr1.launch.kubernetes.values import MODELS, chart_of, shared_values
from editr1.runs.kinds import Kind

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
    """Run all checks, and yield the result of each as soon as it is known.

    A check that fails with an unexpected exception becomes a finding, so that the other checks still run. If the API server
    does not respond, only the first check runs.
    """
    version = _try("API server", lambda: str((connection.api.client.get_path("/version") or {}).get("gitVersion", "")))
    yield version
    if not version.ok:
        return
    for check, action in _CHECKS.items():
        yield from _guarded(check, action, connection)


def _guarded(
    check: str, action: Callable[[Connection], Iterable[Finding]], connection: Connection
) -> Iterator[Finding]:
    """Yield the findings of a check, and a finding for the exception with which it ends, if any."""
    try:
        yield from action(connection)
    except Exception as error:  # The objects of a cluster are written by many programs and can contain anything.
        kind = "" if isinstance(error, Editr1Error) else f"{type(error).__name__}: "
        yield Finding(check, False, f"not checked: {kind}{error}", needed=False)


def _try(check: str, action: Callable[[], str], *, needed: bool = True) -> Finding:
    try:
        return Finding(check, True, action(), needed)
    except (ConfigError, StoreError) as error:
        return Finding(check, False, str(error), needed)


def _jobs(connection: Connection) -> Iterator[Finding]:
    check = "training-operator (PyTorchJob v1)"
    if _serves(connection, "/apis/kubeflow.org/v1", "pytorchjobs"):
        yield Finding(check, True, "kubeflow.org/v1")
        return
    trainer = connection.api.client.get_path("/apis/trainer.kubeflow.org") is not None
    other = " Kubeflow Trainer 2 is installed, but it has no PyTorchJobs; both can be installed." if trainer else ""
    yield Finding(check, False, f"not installed; install Kubeflow's training-operator 1.9.{other}")


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


def _namespace(connection: Connection) -> Iterator[Finding]:
    check = "Pod Security"
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{connection.api.namespace}")
    except ConfigError:
        yield Finding(
            check,
            True,
            "not checked, because the current user has no permission to read the namespace; the pods of editr1 comply with "
            "Pod Security level restricted",
            needed=False,
        )
        return
    if found is None:
        yield Finding("namespace", False, f"{connection.api.namespace} does not exist; create it")
        return
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "none")
    yield Finding(
        check,
        True,
        f"the namespace enforces level {level}; the pods of editr1 comply with Pod Security level restricted",
        needed=False,
    )


def _quota(connection: Connection) -> Iterator[Finding]:
    quotas, ranges = (_listed(connection, kind) for kind in ("resourcequotas", "limitranges"))
    if quotas is None:
        detail = "not checked, because the current user has no permission to read ResourceQuotas"
        yield Finding("quota", True, detail, needed=False)
        return
    for item in quotas:
        check, status = f"quota {item['metadata']['name']}", item.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        shown = ", ".join(f"{name} {used.get(name, 0)}/{most}" for name, most in hard.items())
        full = exhausted(item)
        yield Finding(check, not full, f"{shown}; exhausted: {', '.join(full)}" if full else shown, needed=bool(full))
    if ranges is not None:
        yield from _demands(connection, demanded(quotas, ranges))
    elif demanded(quotas, ()):
        detail = "whether the containers set what the quota requires was not checked, because the current user has no permission"
        yield Finding("quota", True, f"{detail} to read LimitRanges", needed=False)


def _listed(connection: Connection, kind: str) -> list[Any] | None:
    """Return the objects of a core kind in the namespace, or None if the current user has no permission to list them."""
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{connection.api.namespace}/{kind}")
    except ConfigError:
        return None
    return list((found or {}).get("items") or ())


def _demands(connection: Connection, wanted: dict[str, str]) -> Iterator[Finding]:
    """Warn about stages whose pods a quota would reject, because their containers do not set what it requires."""
    missing: dict[str, list[str]] = {}
    for kind in Kind:
        given = shared_values(connection.config, kind, str(kind)).get("resources") or {}
        default = MODELS[kind]().resources
        resources = {"requests": default.requests, "limits": default.limits} | given
        for name in lacking(resources, wanted):
            missing.setdefault(name, []).append(chart_of(kind))
    for name, charts in missing.items():
        yield Finding(
            f"quota {wanted[name]}",
            False,
            f"it requires every container to set {name}, but the chart value resources.{name} is not set for"
            f" {', '.join(charts)}; set values.resources.{name} in the cluster settings",
            needed=False,
        )


def _gpus(connection: Connection) -> Iterator[Finding]:
    check = "GPUs"
    try:
        nodes = (connection.api.client.get_path("/api/v1/nodes") or {}).get("items", [])
    except ConfigError:
        detail = "not checked, because the current user has no permission to list nodes"
        yield Finding(check, True, detail, needed=False)
        return
    count = devices(nodes)
    detail = (
        ", ".join(f"{amount} {name}" for name, amount in count.items())
        or "no GPUs; set the chart value gpus to 0, or add GPU nodes"
    )
    yield Finding(check, bool(count), f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}; {detail}", needed=False)


def _keda(connection: Connection) -> Iterator[Finding]:
    found = _serves(connection, "/apis/keda.sh/v1alpha1", "scaledobjects")
    detail = "keda.sh/v1alpha1" if found else "not installed; only the autoscaling modes hpa and none are available"
    yield Finding("KEDA", found, detail, needed=False)


def _operator(connection: Connection) -> Iterator[Finding]:
    """Check who executes the runs: an operator that watches the namespace, or the command ``editr1 run``."""
    check = "operator (EditRun)"
    if not connection.config.use_operator:
        yield Finding(check, True, "not used (use_operator is false); editr1 run starts the stages from this machine")
        return
    if not EditRuns(connection.api).is_installed():
        detail = "not installed; the command editr1 run starts the stages from this machine instead"
        yield Finding(check, False, detail, needed=False)
        return
    if not connection.api.is_allowed("create", "editr1.dev", "editruns"):
        yield Finding(
            check, False, "the current user has no permission to create EditRuns; use editr1 run --no-operator"
        )
        return
    found = presence(connection.api.client, connection.api.namespace)
    yield Finding(check, bool(found.watches), found.detail, needed=False)  # single stages and --no-operator work


def _queue(connection: Connection) -> Iterator[Finding]:
    check, wanted = "Kueue queue", _named(connection, "queueName")
    if not wanted:
        yield Finding(check, True, "not configured", needed=False)
        return
    if not connection.api.is_allowed("get", "kueue.x-k8s.io", "localqueues"):
        detail = f"{wanted}: not checked, because the current user has no permission to read LocalQueues"
        yield Finding(check, True, detail, needed=False)
        return
    path = f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{connection.api.namespace}/localqueues/{wanted}"
    found = connection.api.client.get_path(path)
    missing = f"LocalQueue {wanted} does not exist in the namespace; create it, or change the chart value queueName"
    yield Finding(check, found is not None, wanted if found else missing)


def _secret(connection: Connection) -> Iterator[Finding]:
    """Check that the Secret with the credentials of the artifact store exists and has the configured keys."""
    name = _named(connection, "store", "secretName", default="editr1-s3")
    if not name:
        detail = "none (store.secretName is empty); pods use their own identity"
        yield Finding("Secret of the store", True, detail, needed=False)
        return
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


def _collector(connection: Connection) -> Iterator[Finding]:
    check, endpoint = "trace collector", _named(connection, "telemetry", "endpoint")
    if not endpoint:
        yield Finding(check, True, "not configured; spans are written to the artifact store", needed=False)
        return
    service = service_of(endpoint, connection.api.namespace)
    if service is None or not _namespace_exists(connection, service[1]):
        yield Finding(check, True, f"{endpoint} is outside the cluster and was not checked", needed=False)
        return
    name, namespace = service
    try:
        found = connection.api.client.get_path(f"/api/v1/namespaces/{namespace}/services/{name}") is not None
    except ConfigError:
        detail = f"{endpoint}: not checked, because the current user cannot read Services in namespace {namespace}"
        yield Finding(check, True, detail, needed=False)
        return
    missing = f"{endpoint}: Service {name} does not exist in namespace {namespace}"
    yield Finding(check, found, endpoint if found else missing, needed=False)


def _namespace_exists(connection: Connection, namespace: str) -> bool:
    """Return False only if the API server answers that the namespace does not exist."""
    try:
        return connection.api.client.get_path(f"/api/v1/namespaces/{namespace}") is not None
    except ConfigError:
        return True


def _named(connection: Connection, *path: str, default: str = "") -> str:
    """Return the chart value at ``path`` in the cluster settings, or ``default`` if it is not set or is not a text."""
    value: Any = connection.config.values
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) else default


_CHECKS: dict[str, Callable[[Connection], Iterable[Finding]]] = {
    "training-operator (PyTorchJob v1)": _jobs,
    "permissions": _permissions,
    "Pod Security": _namespace,
    "quota": _quota,
    "GPUs": _gpus,
    "KEDA": _keda,
    "operator (EditRun)": _operator,
    "Kueue queue": _queue,
    "Secret of the store": _secret,
    "store": _store,
    "trace collector": _collector,
}
"""Checks in the order in which they run, each under the name of the finding that reports an unexpected exception."""
