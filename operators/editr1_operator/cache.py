"""What the watches have told of the cluster, small enough to hold for a thousand runs."""

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
Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Held:
    """A job or service; ``owners`` are the runs that own it, identity to name."""

    view: JobView
    uid: str
    version: str
    attempt: int
    terminating: bool
    owners: Mapping[str, str]


class HeldPod(NamedTuple):
    """A pod."""

    view: PodView
    version: str


def held(body: Mapping[str, Any]) -> Held:
    """A PyTorchJob or Deployment as the API gives it."""
    meta = body["metadata"]
    service = body["kind"] == "Deployment"
    return Held(
        view=service_view(body) if service else job_view(body),
        uid=meta["uid"],
        version=meta.get("resourceVersion", ""),
        attempt=int((meta.get("annotations") or {}).get(ATTEMPT, 0)),
        terminating="deletionTimestamp" in meta,
        owners={item["uid"]: item["name"] for item in meta.get("ownerReferences") or () if item["kind"] == KIND},
    )


class Cache:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[Key, dict[str, Any]] = {}
        self._jobs: dict[Key, Held] = {}
        self._pods: dict[Key, dict[str, HeldPod]] = defaultdict(dict)

    def put_run(self, body: dict[str, Any], gone: bool) -> Key:
        """Take an EditRun, or let it go."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        with self._lock:
            known = self._runs.get(key)
            if gone:
                if known is not None and known["metadata"]["uid"] == meta["uid"]:
                    del self._runs[key]
            elif known is None or _newer(meta, known["metadata"]):
                meta.pop("managedFields", None)
                self._runs[key] = body
        return key

    def put_job(self, body: Mapping[str, Any], gone: bool) -> list[Key]:
        """Take a job or service, or let it go; returns the runs that it belongs to."""
        item = held(body)
        namespace = body["metadata"]["namespace"]
        with self._lock:
            known = self._jobs.get((namespace, item.view.name))
            if gone:
                if known is not None and known.uid == item.uid:
                    del self._jobs[namespace, item.view.name]
            else:
                self._jobs[namespace, item.view.name] = item
        return [(namespace, name) for name in item.owners.values()]

    def put_pod(self, body: Mapping[str, Any], gone: bool) -> list[Key]:
        """Take a pod, or let it go; returns the runs that its job belongs to."""
        meta = body["metadata"]
        key = (meta["namespace"], (meta.get("labels") or {}).get(INSTANCE, ""))
        pod = _pod(body)
        name = pod.view.name
        with self._lock:
            if not gone:
                self._pods[key][name] = pod
            elif self._pods[key].get(name, pod).view.uid == pod.view.uid:
                self._pods[key].pop(name, None)
                if not self._pods[key]:
                    del self._pods[key]
            item = self._jobs.get(key)
        return [(key[0], name) for name in item.owners.values()] if item else []

    def holds(self, body: Mapping[str, Any]) -> bool:
        """Whether this very version is held: what a watch that begins anew lists is mostly known."""
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

    def renew(
        self, namespace: str, release: str, job: Mapping[str, Any] | None, pods: Iterable[Mapping[str, Any]]
    ) -> None:
        """Put what the API server says now in place of what the watches told: they can miss that something went."""
        key = (namespace, release)
        there = [_pod(item) for item in pods]
        with self._lock:
            self._pods.pop(key, None)
            if there:
                self._pods[key] = {pod.view.name: pod for pod in there}
            if job is None:
                self._jobs.pop(key, None)
            else:
                self._jobs[key] = held(job)

    def run(self, key: Key) -> dict[str, Any] | None:
        """An EditRun."""
        with self._lock:
            return self._runs.get(key)

    def runs(self) -> list[Key]:
        """Every EditRun."""
        with self._lock:
            return list(self._runs)

    def job(self, namespace: str, name: str) -> Held | None:
        """A job or service."""
        with self._lock:
            return self._jobs.get((namespace, name))

    def pods(self, namespace: str, release: str) -> tuple[PodView, ...]:
        """The pods of a job or service, by index."""
        with self._lock:
            found = list(self._pods.get((namespace, release), {}).values())
        return tuple(sorted((pod.view for pod in found), key=lambda view: (view.index, view.name)))


def _pod(body: Mapping[str, Any]) -> HeldPod:
    return HeldPod(pod_view(body), body["metadata"].get("resourceVersion", ""))


def _newer(meta: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """A watch may tell late of what our own write has already changed."""
    return meta["uid"] != known["uid"] or int(meta["resourceVersion"]) >= int(known["resourceVersion"])
