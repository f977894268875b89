"""Load the cluster settings, connect to the cluster, and open its artifact store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from editr1.artifacts import ArtifactStore, OutageWait, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError, load_settings
from editr1.config.store import StoreConfig, options_from_environment, store_at
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.namespace import ClusterNamespace, open_namespace

FILE_VARIABLE = "EDITR1_CLUSTER_FILE"
DEFAULT_FILE = Path("~/.config/editr1/cluster.yaml")


@dataclass(frozen=True)
class Connection:
    """Connection of a command to a cluster: the cluster settings, access to the objects of one namespace, and Helm."""

    config: ClusterConfig
    api: ClusterNamespace
    helm: Helm


def load_cluster(
    file: Path | None, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> ClusterConfig:
    """Return the cluster settings. Raises ConfigError.

    They are read from a file, from the variables ``EDITR1_CLUSTER__...``, and from ``overrides``. A later source overrides an
    earlier one. The file is ``file``, else the path in ``EDITR1_CLUSTER_FILE``, else ~/.config/editr1/cluster.yaml if it exists.
    """
    env = os.environ if env is None else env
    if file is None and env.get(FILE_VARIABLE):
        file = Path(env[FILE_VARIABLE])
    if file is None and DEFAULT_FILE.expanduser().is_file():
        file = DEFAULT_FILE.expanduser()
    return load_settings(ClusterConfig, file=file, env=env, env_prefix="EDITR1_CLUSTER__", overrides=overrides)


def connect(config: ClusterConfig) -> Connection:
    """Return a connection to the cluster in the settings. No request is sent. Raises ClusterError, ConfigError."""
    return Connection(config, open_namespace(config), Helm())


def store_config(config: ClusterConfig, url: str | None = None) -> StoreConfig:
    """Return the settings with which this machine can open the artifact store that the pods on the cluster use.

    The URL of the store is ``url``, or ``values.store.url`` in the cluster settings if ``url`` is None.

    Raises:
        ConfigError: no store is configured, or pods cannot reach a store with this URL.
    """
    values = config.values.get("store", {})
    if not isinstance(values, Mapping):
        raise ConfigError(f"values.store: {values!r} must be a mapping such as {{url: s3://bucket/prefix}}")
    url = url or values.get("url")
    if not url:
        raise ConfigError(
            "no artifact store is configured; set --store, or values.store.url in the cluster settings, to s3://bucket/prefix"
        )
    if not url.startswith("s3://"):
        raise ConfigError(f"store {url!r}: pods cannot reach it; give an S3 bucket as s3://bucket/prefix")
    endpoint = config.store_endpoint or options_from_environment().get("endpoint") or values.get("endpoint") or None
    return store_at(
        url,
        endpoint=endpoint,
        region=values.get("region") or None,
        secure=values.get("secure", True),
        outage_seconds=values.get("outageSeconds"),
    )


def cluster_store(config: ClusterConfig, url: str | None = None, *, wait: bool = False) -> ArtifactStore:
    """Open the artifact store whose settings :func:`store_config` returns. With ``wait``, its operations wait during an outage."""
    settings = store_config(config, url)
    return open_store(settings, OutageWait(settings.outage_seconds) if wait else None)
