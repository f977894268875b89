"""In-memory cache of the EditRuns, jobs, services and pods that the operator watches.

Fields of jobs and pods that the operator does not need are not stored, so that a thousand runs fit into its memory.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from editr1.launch.kubernetes.parse import job_view, pod_view, service_view
from editr1.launch.kubernetes.resources import INSTANCE
from editr1.launch.kubernetes.views import JobView, PodView
from editr1_operator.crd import KIND

ATTEMPT = "editr1.dev/attempt"
"""Name of the annotation that contains the attempt number of a job."""
Key = tuple[str, str]
"""Namespace and name of an EditRun."""


@dataclass(frozen=True)
class CachedJob:
    """A cached PyTorchJob, or the cached Deployment of a reward service."""

    view: JobView
    uid: str
    version: str
    attempt: int
    terminating: bool
    owners: Mapping[str, str]
    """Names of the EditRuns that own the job or service, by UID of the EditRun."""


class CachedPod(NamedTuple):
    """A cached pod and its resource version."""

    view: PodView
    version: str


def cached_job(body: Mapping[str, Any]) -> CachedJob:
    """Convert a PyTorchJob or Deployment in the API server's JSON format to its cached form."""
    meta = body["metadata"]
    service = body["kind"] == "Deployment"
    return CachedJob(
        view=service_view(body) if service else job_view(body),
        uid=meta["uid"],
        version=meta.get("resourceVersion", ""),
        attempt=int((meta.get("annotations") or {}).get(ATTEMPT, 0)),
        terminating="deletionTimestamp" in meta,
        owners={item["uid"]: item["name"] for item in meta.get("ownerReferences") or () if item["kind"] == KIND},
    )


class Cache:
    """Thread-safe cache of EditRuns, jobs, services and pods, by namespace and name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[Key, dict[str, Any]] = {}
        self._jobs: dict[Key, CachedJob] = {}
        self._pods: dict[Key, dict[str, CachedPod]] = defaultdict(dict)

    def put_run(self, body: dict[str, Any], deleted: bool) -> Key:
        """Store an EditRun, or remove it if ``deleted``. A version older than the cached one is ignored."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        with self._lock:
            known = self._runs.get(key)
            if deleted:
                if known is not None and known["metadata"]["uid"] == meta["uid"]:
                    del self._runs[key]
            elif known is None or _newer(meta, known["metadata"]):
                meta.pop("managedFields", None)
                self._runs[key] = body
        return key

    def put_job(self, body: Mapping[str, Any], deleted: bool) -> list[Key]:
        """Store a job or service, or remove it if ``deleted``. Returns the keys of the runs that own it."""
        item = cached_job(body)
        namespace = body["metadata"]["namespace"]
        with self._lock:
            known = self._jobs.get((namespace, item.view.name))
            if deleted:
                if known is not None and known.uid == item.uid:
                    del self._jobs[namespace, item.view.name]
            else:
                self._jobs[namespace, item.view.name] = item
        return [(namespace, name) for name in item.owners.values()]

    def put_pod(self, body: Mapping[str, Any], deleted: bool) -> list[Key]:
        """Store a pod, or remove it if ``deleted``. Returns the keys of the runs that own the pod's job or service."""
        meta = body["metadata"]
        key = (meta["namespace"], (meta.get("labels") or {}).get(INSTANCE, ""))
        pod = _pod(body)
        name = pod.view.name
        with self._lock:
            if not deleted:
                self._pods[key][name] = pod
            elif self._pods[key].get(name, pod).view.uid == pod.view.uid:
                self._pods[key].pop(name, None)
                if not self._pods[key]:
                    del self._pods[key]
            item = self._jobs.get(key)
        return [(key[0], name) for name in item.owners.values()] if item else []

    def has(self, body: Mapping[str, Any]) -> bool:
        """Return True if exactly this version of an object is cached.

        A restarted watch lists all objects again, and most of them are cached in the listed version.
        """
        meta = body["metadata"]
        namespace, name, labels = meta["namespace"], meta["name"], meta.get("labels") or {}
        with self._lock:
            if body["kind"] == KIND:
                run = self._runs.get((namespace, name))
                known = run["metadata"]["resourceVersion"] if run else None
            elif body["kind"] == "Pod":
                pod = self._pods.get((namespace, labels.get(INSTANCE, "")), {}).get(name)
                known = pod.version if pod else None
            else:
                job = self._jobs.get((namespace, name))
                known = job.version if job else None
        return bool(known == meta["resourceVersion"])

    def resync(
        self, namespace: str, release: str, job: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]]
    ) -> None:
        """Replace a cached job or service and its pods with the objects that the API server listed.

        This removes objects whose deletion the watches did not report.
        """
        key = (namespace, release)
        listed = [_pod(item) for item in pods]
        with self._lock:
            self._pods.pop(key, None)
            if listed:
                self._pods[key] = {pod.view.name: pod for pod in listed}
            if job is None:
                self._jobs.pop(key, None)
            else:
                self._jobs[key] = cached_job(job)

    def run(self, key: Key) -> dict[str, Any] | None:
        """Return a cached EditRun in the API server's JSON format, or None if it is not cached."""
        with self._lock:
            return self._runs.get(key)

    def runs(self) -> list[Key]:
        """Return the namespace and name of every cached EditRun."""
        with self._lock:
            return list(self._runs)

    def job(self, namespace: str, name: str) -> CachedJob | None:
        """Return the cached job or service with this name, or None if there is none."""
        with self._lock:
            return self._jobs.get((namespace, name))

    def pods(self, namespace: str, release: str) -> tuple[PodView, ...]:
        """Return the cached pods of a job or service, sorted by replica index."""
        with self._lock:
            found = list(self._pods.get((namespace, release), {}).values())
        return tuple(sorted((pod.view for pod in found), key=lambda view: (view.index, view.name)))


def _pod(body: Mapping[str, Any]) -> CachedPod:
    return CachedPod(pod_view(body), body["metadata"].get("resourceVersion", ""))


def _newer(meta: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Return True if an object is at least as new as the cached object.

    After the operator has written an object, a watch may still report an older version of it.
    """
    return meta["uid"] != known["uid"] or int(meta["resourceVersion"]) >= int(known["resourceVersion"])
