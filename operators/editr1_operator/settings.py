"""Read the settings that apply to the runs of a namespace: the chart values of their stages, and the artifact store."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError, validate
from editr1.config.merge import deep_merge
from editr1.config.store import StoreConfig, options_from_environment
from editr1.config.yaml import parse_yaml
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.connect import load_cluster, store_config
from editr1.launch.kubernetes.values import check_release_names, release_name
from editr1.launch.origin import versions
from editr1.runs.spec import RunSpec, check_run

NAMESPACE_CONFIG = "editr1-cluster"
"""Name of the ConfigMap whose key ``cluster.yaml`` overrides the operator's own settings for the runs of its namespace."""
MAX_AGE_SECONDS = 30.0
"""Age in seconds after which cached settings are read again."""
EXPIRY_SECONDS = 900.0
"""Age in seconds after which unused cached settings are removed."""


@dataclass(frozen=True)
class NamespaceSettings:
    """Cluster settings for the runs of a namespace, and the opened artifact store that they use."""

    cluster: ClusterConfig
    config: StoreConfig
    store: ArtifactStore


class SettingsCache:
    """Thread-safe cache of the settings of each namespace."""

    def __init__(self, file: Path | None, stores: Sequence[str] = ()) -> None:
        self._base, self._stores = load_cluster(file), tuple(stores)
        self._lock = threading.Lock()
        self._cached: dict[tuple[str, str | None], tuple[float, NamespaceSettings]] = {}
        self.versions = versions()

    def of_namespace(self, client: KubernetesClient, namespace: str, url: str | None) -> NamespaceSettings:
        """Return the settings for a run in a namespace, with its artifact store opened.

        Args:
            client: Client that reads the ConfigMap of the namespace.
            namespace: Namespace of the run.
            url: Artifact store in the run's specification. If it is ``None``, the store in the settings is used.

        Raises:
            ConfigError: the settings are invalid, or the administrator does not allow the store.
            ClusterUnreachable: the API server does not respond.
        """
        with self._lock:
            known = self._cached.get((namespace, url))
        if known is not None and time.monotonic() - known[0] < MAX_AGE_SECONDS:
            return known[1]
        # store_endpoint is for machines outside the cluster. The operator uses the same endpoint as the pods.
        config = self._read(client, namespace).model_copy(update={"store_endpoint": None})
        store = store_config(config, url)
        self._check(store)
        if known is not None and known[1].cluster == config and known[1].config == store:
            settings = known[1]
        else:
            settings = NamespaceSettings(config, store, open_store(store))
        now = time.monotonic()
        with self._lock:
            self._cached[namespace, url] = (now, settings)
            for key in [key for key, (read, _) in self._cached.items() if now - read > EXPIRY_SECONDS]:
                del self._cached[key]
        return settings

    def _check(self, store: StoreConfig) -> None:
        """Raise ConfigError if the administrator does not allow the store, which the operator opens with its own credentials."""
        if self._stores and not any(
            store.url == item or store.url.startswith(item.rstrip("/") + "/") for item in self._stores
        ):
            raise ConfigError(
                f"store {store.url!r}: not allowed by the operator; use a store below {' or '.join(self._stores)}"
            )
        own = (self._base.values.get("store") or {}).get("endpoint") or None
        expected = options_from_environment().get("endpoint") or own
        if (own or self._stores) and store.endpoint != expected:
            raise ConfigError(
                f"store.endpoint {store.endpoint!r}: not allowed by the operator, which uses {own or 'AWS'!r}; remove it"
            )

    def _read(self, client: KubernetesClient, namespace: str) -> ClusterConfig:
        found = client.get("ConfigMap", namespace, NAMESPACE_CONFIG)
        text = ((found or {}).get("data") or {}).get("cluster.yaml")
        if not text:
            return self._base
        where = f"ConfigMap {NAMESPACE_CONFIG}, cluster.yaml"
        over = parse_yaml(text, where)
        if not isinstance(over, dict):
            raise ConfigError(f"{where}: must be a YAML mapping; see manifests/cluster.yaml for an example")
        return validate(ClusterConfig, deep_merge(self._base.model_dump(mode="json"), over), where=where)


def read_run(body: Mapping[str, Any]) -> RunSpec:
    """Parse an EditRun with the same checks as a run file. Raises ConfigError, whose message has one line per fault."""
    meta = body["metadata"]
    where = f"EditRun {meta['name']}"
    data = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {"name": meta["name"], "labels": meta.get("labels") or {}},
        "spec": body["spec"],
    }
    spec = validate(RunSpec, data, where=where)
    check_run(spec, where)
    check_release_names(spec.metadata.name, [stage.name for stage in spec.spec.stages], where)
    for stage in spec.spec.stages:
        if release_name(spec.metadata.name, stage.name) == NAMESPACE_CONFIG:
            raise ConfigError(
                f"{where}: the objects of stage {stage.name!r} would be named {NAMESPACE_CONFIG}, which is the name of the"
                " namespace's settings; rename the run or the stage"
            )
    return spec
