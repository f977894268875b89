"""Handlers for the Kubernetes watches, called by kopf.

Each handler stores the object that a watch reported in the cache, and adds the runs that own the object to the work
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import time
from dataclasses import dataclass
from typing import Any

import kopf
from prometheus_client import start_http_server
from pydantic import ValidationError

from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.errors import ClusterUnreachable
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.resources import PART_OF
from editr1.launch.kubernetes.run_status import RunState, RunStatus
from editr1_operator.cache import Cache
from editr1_operator.client import make_client
from editr1_operator.crd import GROUP, PLURAL, VERSION
from editr1_operator.metrics import RUNS
from editr1_operator.notify import Notifier
from editr1_operator.options import Options
from editr1_operator.probes import Probes, any_address
from editr1_operator.queue import WorkQueue
from editr1_operator.reconcile import Reconciler
from editr1_operator.settings import SettingsCache
from editr1_operator.trace import Exporter

ANNOTATION_PREFIX = "operator.editr1.dev"
COUNT_INTERVAL_SECONDS = 5.0
TRIM_INTERVAL_SECONDS = 60.0
KINDS_INTERVAL_SECONDS = 5.0
WATCHED_KINDS = ("EditRun", "PyTorchJob", "Deployment", "Pod")
_OWN_LABELS = dict([PART_OF.split("=")])

log = logging.getLogger("editr1.operator")


@dataclass(frozen=True)
class Components:
    """Background components of the running operator."""

    queue: WorkQueue
    reconciler: Reconciler
    notifier: Notifier
    exporter: Exporter
    counter: asyncio.Task[None]

    def close(self) -> None:
        """Finish the reconciliations that are in progress, and send the notifications and spans that are still queued."""
        self.counter.cancel()
        self.queue.close()
        self.notifier.close()
        self.exporter.close()


class Handlers:
    """Event handlers of the operator, with the cache and the background components that they use."""

    def __init__(self, options: Options, probes: Probes) -> None:
        self._options, self._probes, self._cache = options, probes, Cache()
        self._components: Components | None = None

    def registry(self) -> kopf.OperatorRegistry:
        """Return a kopf registry that contains the handlers."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self.on_run)
        kopf.on.event("kubeflow.org", "v1", "pytorchjobs", labels=_OWN_LABELS, registry=registry)(self.on_job)
        kopf.on.event("apps", "v1", "deployments", labels=_OWN_LABELS, registry=registry)(self.on_job)
        kopf.on.event("", "v1", "pods", labels=_OWN_LABELS, registry=registry)(self.on_pod)
        return registry

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Configure kopf, wait until the watched kinds are installed, and start the background components."""
        configure_kopf(settings)
        client = make_client(connections=self._options.workers * 2)
        await wait_for_kinds(client)
        self._components = self._start_components(client)
        if self._options.metrics_port:
            start_http_server(self._options.metrics_port, addr=any_address())

    async def stop(self, **_: Any) -> None:
        """Stop the background components."""
        self._running.close()

    async def on_run(self, event: Any, **_: Any) -> None:
        """Handle a watch event of an EditRun."""
        if self._is_cached(event):
            return
        body, deleted = dict(event["object"]), event["type"] == "DELETED"
        key = self._cache.put_run(body, deleted)
        if deleted:
            await self._running.queue.call(lambda: self._running.reconciler.record_deletion(body))
        else:
            self._running.queue.add(key)

    async def on_job(self, event: Any, **_: Any) -> None:
        """Handle a watch event of a PyTorchJob or Deployment."""
        if not self._is_cached(event):
            for key in self._cache.put_job(event["object"], event["type"] == "DELETED"):
                self._running.queue.add(key)

    async def on_pod(self, event: Any, **_: Any) -> None:
        """Handle a watch event of a pod."""
        if not self._is_cached(event):
            for key in self._cache.put_pod(event["object"], event["type"] == "DELETED"):
                self._running.queue.add(key)

    @property
    def _running(self) -> Components:
        assert self._components is not None, "kopf must call the startup handler before any other handler"
        return self._components

    def _start_components(self, client: KubernetesClient) -> Components:
        options = self._options
        notifier, exporter = Notifier(options.notify_url, options.notify_token.get_secret_value()), Exporter()
        settings = SettingsCache(options.cluster_file, options.store_list())
        reconciler = Reconciler(client, self._cache, Helm(), settings, notifier, exporter)
        queue = WorkQueue(reconciler.reconcile, options.workers)
        counter = asyncio.get_running_loop().create_task(count_runs(self._cache, self._probes))
        return Components(queue, reconciler, notifier, exporter, counter)

    def _is_cached(self, event: Any) -> bool:
        """Return True if a restarted watch listed an object again whose current version is already cached."""
        return event["type"] is None and self._cache.has(event["object"])


def configure_kopf(settings: kopf.OperatorSettings) -> None:
    """Configure kopf so that it writes nothing to the cluster and restarts its watches every few minutes."""
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=ANNOTATION_PREFIX)
    settings.persistence.finalizer = (
        f"{ANNOTATION_PREFIX}/none"  # This setting has no effect, because no handler needs a finalizer.
    )
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 1.0  # kopf stores the last event of each object for this time.
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300


async def wait_for_kinds(client: KubernetesClient) -> None:
    """Wait until every watched kind is installed in the cluster, because kopf only looks up the kinds when it starts.

    While the API server does not respond, the wait continues.
    """
    while True:
        try:
            missing = await asyncio.to_thread(client.missing_kinds, WATCHED_KINDS)
        except ClusterUnreachable as error:  # kopf would repeat the startup handler only after a minute.
            log.warning("%s; checking again in %.0f s", error, KINDS_INTERVAL_SECONDS)
        else:
            if not missing:
                return
            message = "kinds not installed in the cluster: %s; install their CustomResourceDefinitions; checking again in %.0f s"
            log.warning(message, ", ".join(missing), KINDS_INTERVAL_SECONDS)
        await asyncio.sleep(KINDS_INTERVAL_SECONDS)


async def count_runs(cache: Cache, probes: Probes) -> None:
    """Update the metric of runs per state every few seconds, and return free memory to the system every minute, forever.

    Each round tells ``probes`` that the event loop is not blocked.
    """
    trimmed = time.monotonic()
    while True:
        probes.beat()
        if time.monotonic() - trimmed > TRIM_INTERVAL_SECONDS:
            trimmed = time.monotonic()
            await asyncio.to_thread(_trim_memory)
        counts = {state: 0 for state in RunState}
        for key in cache.runs():
            body = cache.run(key)
            try:
                counts[RunStatus.model_validate((body or {}).get("status") or {}).state] += 1
            except ValidationError as error:
                log.warning(
                    "the status of EditRun %s/%s is invalid; the metric of runs per state excludes it: %s", *key, error
                )
        for state, count in counts.items():
            RUNS.labels(str(state)).set(count)
        await asyncio.sleep(COUNT_INTERVAL_SECONDS)


def _trim_memory() -> None:
    """Make glibc return free memory to the system, such as the memory that the first list of a watch needed."""
    with contextlib.suppress(AttributeError, OSError):  # The C library is not glibc.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
