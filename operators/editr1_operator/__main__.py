"""Run the operator: ``python -m editr1_operator``. Settings come from the environment, see :class:`Options`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any

import kopf
from prometheus_client import start_http_server
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.resources import PART_OF
from editr1.launch.kubernetes.run_status import RunState, RunStatus
from editr1.telemetry.log import configure_logging, requested_format
from editr1_operator.cache import Cache
from editr1_operator.client import make_client
from editr1_operator.crd import GROUP, PLURAL, VERSION
from editr1_operator.metrics import RUNS
from editr1_operator.notify import Notifier
from editr1_operator.queue import WorkQueue
from editr1_operator.reconcile import Reconciler
from editr1_operator.settings import Settings
from editr1_operator.trace import Exporter

PREFIX = "operator.editr1.dev"
COUNT_SECONDS = 5.0
TRIM_SECONDS = 60.0
WAIT_SECONDS = 5.0
WATCHED = ("EditRun", "PyTorchJob", "Deployment", "Pod")
_MINE = dict([PART_OF.split("=")])

log = logging.getLogger("editr1.operator")


class Options(BaseSettings):
    """Environment of the operator's process."""

    model_config = SettingsConfigDict(env_prefix="EDITR1_OPERATOR_")

    namespaces: Annotated[str, NoDecode] = ""
    """Namespaces to watch, joined by commas; empty watches all."""
    cluster_file: Path | None = None
    """Settings that the stages of every run share (editr1.config.cluster)."""
    stores: Annotated[str, NoDecode] = ""
    """Stores (s3://bucket/prefix) that it may open, joined by commas; empty allows any."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Runs looked at side by side."""
    liveness_port: int = 8080
    """Where /healthz answers."""
    metrics_port: int = 9090
    """Where /metrics answers; 0 for nowhere."""
    notify_url: str = ""
    """Webhook that is told of changes; empty tells nobody."""
    notify_token: SecretStr = SecretStr("")
    """Bearer token that is sent to it."""


def registry(options: Options) -> kopf.OperatorRegistry:
    """The handlers: each takes what a watch tells into the cache and has the run looked at."""
    found = kopf.OperatorRegistry()
    cache = Cache()
    parts: dict[str, Any] = {}

    def known(event: Any) -> bool:
        """Whether this is of the list with which a watch begins, every few minutes, and tells nothing new."""
        return event["type"] is None and cache.holds(event["object"])

    @kopf.on.login(registry=found)
    def login(**keywords: Any) -> Any:
        return kopf.login_via_client(**keywords)

    @kopf.on.startup(registry=found)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
        settings.persistence.finalizer = f"{PREFIX}/none"  # no handler of ours needs one
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.scanning.disabled = True
        settings.queueing.idle_timeout = 1.0  # each object's last event is held that long
        settings.watching.server_timeout = 240
        settings.watching.client_timeout = 300
        client = make_client(connections=options.workers * 2)
        await _served(client)
        parts["notifier"] = Notifier(options.notify_url, options.notify_token.get_secret_value())
        parts["exporter"] = Exporter()
        settings_of_runs = Settings(options.cluster_file, _names(options.stores))
        reconciler = Reconciler(client, cache, Helm(), settings_of_runs, parts["notifier"], parts["exporter"])
        parts["reconciler"] = reconciler
        parts["queue"] = WorkQueue(reconciler.look, options.workers)
        if options.metrics_port:
            start_http_server(options.metrics_port)
        parts["count"] = asyncio.get_running_loop().create_task(_count(cache))

    @kopf.on.cleanup(registry=found)
    async def stop(**_: Any) -> None:
        parts["count"].cancel()
        parts["queue"].close()
        parts["notifier"].close()
        parts["exporter"].close()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=found)
    async def run(event: Any, **_: Any) -> None:
        if known(event):
            return
        body, gone = dict(event["object"]), event["type"] == "DELETED"
        key = cache.put_run(body, gone)
        if gone:
            await parts["queue"].call(lambda: parts["reconciler"].gone(body))
        else:
            parts["queue"].add(key)

    async def job(event: Any, **_: Any) -> None:
        if known(event):
            return
        for key in cache.put_job(event["object"], event["type"] == "DELETED"):
            parts["queue"].add(key)

    kopf.on.event("kubeflow.org", "v1", "pytorchjobs", labels=_MINE, registry=found)(job)
    kopf.on.event("apps", "v1", "deployments", labels=_MINE, registry=found)(job)

    @kopf.on.event("", "v1", "pods", labels=_MINE, registry=found)
    async def pod(event: Any, **_: Any) -> None:
        if known(event):
            return
        for key in cache.put_pod(event["object"], event["type"] == "DELETED"):
            parts["queue"].add(key)

    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


async def _served(client: KubernetesClient) -> None:
    """Wait until the cluster knows every kind that is watched: kopf looks for them once, at its start."""
    while missing := await asyncio.to_thread(client.missing_kinds, WATCHED):
        log.warning("the cluster does not know %s yet; looking again", ", ".join(missing))
        await asyncio.sleep(WAIT_SECONDS)


async def _count(cache: Cache) -> None:
    trimmed = time.monotonic()
    while True:
        if time.monotonic() - trimmed > TRIM_SECONDS:
            trimmed = time.monotonic()
            await asyncio.to_thread(_give_back)
        counts = {state: 0 for state in RunState}
        for key in cache.runs():
            body = cache.run(key)
            try:
                counts[RunStatus.model_validate((body or {}).get("status") or {}).state] += 1
            except ValidationError as error:
                log.warning("%s/%s: status cannot be read: %s", *key, error)
        for state, count in counts.items():
            RUNS.labels(str(state)).set(count)
        await asyncio.sleep(COUNT_SECONDS)


def _give_back() -> None:
    """Have glibc return what it holds free: each list with which a watch begins is read whole."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def main() -> None:
    """Run until SIGTERM."""
    configure_logging(requested_format())
    logging.getLogger("kopf").setLevel(os.environ.get("EDITR1_OPERATOR_KOPF_LEVEL", "WARNING"))
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    options = Options()
    names = _names(options.namespaces)
    log.info("watching %s", ", ".join(names) or "all namespaces")
    kopf.run(
        registry=registry(options),
        clusterwide=not names,
        namespaces=names,
        liveness_endpoint=f"http://0.0.0.0:{options.liveness_port}/healthz",
        standalone=True,
    )


if __name__ == "__main__":
    main()
