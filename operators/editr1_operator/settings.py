"""The operator's settings, and what a namespace's runs share: the chart values of its stages, its bucket."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError, validate
from editr1.config.merge import deep_merge
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.connect import load_cluster, store_config
from editr1.launch.kubernetes.values import release_name
from editr1.launch.origin import versions
from editr1.runs.spec import RunSpec, check_run

NAMESPACE_CONFIG = "editr1-cluster"
"""ConfigMap of a namespace whose ``cluster.yaml`` is laid over the operator's own settings."""
FRESH_SECONDS = 30.0
FORGOTTEN_SECONDS = 900.0


@dataclass(frozen=True)
class Site:
    """What the runs of a namespace share."""

    cluster: ClusterConfig
    config: StoreConfig
    store: ArtifactStore


class Settings:
    """Settings by namespace, read again every half minute."""

    def __init__(self, file: Path | None, stores: Sequence[str] = ()) -> None:
        self._base, self._stores = load_cluster(file), tuple(stores)
        self._lock = threading.Lock()
        self._sites: dict[tuple[str, str | None], tuple[float, Site]] = {}
        self.versions = versions()

    def site(self, client: KubernetesClient, namespace: str, url: str | None) -> Site:
        """The namespace's settings, and the store ``url`` or else its own. Raises ConfigError, ClusterUnreachable."""
        with self._lock:
            known = self._sites.get((namespace, url))
        if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
            return known[1]
        # A file that was written for a laptop says how that reaches the bucket; here the pods' own way holds.
        config = self._of(client, namespace).model_copy(update={"store_endpoint": None})
        where = store_config(config, url)
        self._check(where)
        if known is not None and known[1].cluster == config and known[1].config == where:
            site = known[1]
        else:
            site = Site(config, where, open_store(where))
        now = time.monotonic()
        with self._lock:
            self._sites[namespace, url] = (now, site)
            for key in [key for key, (read, _) in self._sites.items() if now - read > FORGOTTEN_SECONDS]:
                del self._sites[key]
        return site

    def _check(self, where: StoreConfig) -> None:
        """The operator opens stores with its own keys: only those that its administrator allows, where one said which."""
        if self._stores and not any(
            where.url == item or where.url.startswith(item.rstrip("/") + "/") for item in self._stores
        ):
            raise ConfigError(f"store {where.url!r}: the operator may use {', '.join(self._stores)}")
        own = (self._base.values.get("store") or {}).get("endpoint") or None
        if (own or self._stores) and where.endpoint != (os.environ.get("EDITR1_S3_ENDPOINT") or own):
            raise ConfigError(f"store.endpoint {where.endpoint!r}: the operator's own settings say {own or 'AWS'!r}")

    def _of(self, client: KubernetesClient, namespace: str) -> ClusterConfig:
        found = client.get("ConfigMap", namespace, NAMESPACE_CONFIG)
        text = ((found or {}).get("data") or {}).get("cluster.yaml")
        if not text:
            return self._base
        where = f"ConfigMap {NAMESPACE_CONFIG}, cluster.yaml"
        try:
            over = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: not YAML: {error}") from None
        if not isinstance(over, dict):
            raise ConfigError(f"{where}: must be a mapping, as manifests/cluster.yaml is")
        return validate(ClusterConfig, deep_merge(self._base.model_dump(mode="json"), over), where=where)


def read_run(body: Mapping[str, Any]) -> RunSpec:
    """An EditRun as the run file it is. Raises ConfigError with everything in it that cannot run."""
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
    for stage in spec.spec.stages:
        if release_name(spec.metadata.name, stage.name) == NAMESPACE_CONFIG:
            raise ConfigError(f"{where}: stage {stage.name!r} would be named as the namespace's settings are")
    return spec
