"""Read and write the Kubernetes objects of one namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.client import KubernetesClient, Object
from editr1.launch.kubernetes.errors import ClusterError, RequestRefused
from editr1.launch.kubernetes.helm import Target
from editr1.launch.kubernetes.parse import event_view, job_view, pod_view, service_view
from editr1.launch.kubernetes.resources import INSTANCE, PART_OF
from editr1.launch.kubernetes.views import EventView, JobView, PodView, ReleaseView


class ClusterNamespace:
    """Access to the Kubernetes objects of one namespace. Every method raises ClusterError if a request fails.

    Attributes:
        client: Client of the cluster. It can also send requests that are not limited to the namespace.
        namespace: Name of the namespace.
        target: Cluster and namespace in the form that :class:`~editr1.launch.kubernetes.helm.Helm` needs.
    """

    def __init__(self, client: KubernetesClient, target: Target) -> None:
        self.client, self.target, self.namespace = client, target, target.namespace

    def release(self, name: str) -> ReleaseView:
        """Return the job or service of a release, with its pods and events."""
        job = self._job(name) or self._service(name)
        pods = self.pods(name) if job else ()
        events = self._events(name) if job else ()
        return ReleaseView(name, self.namespace, job, pods, events)

    def jobs(self, run: str | None = None) -> list[JobView]:
        """Return the jobs and services in the namespace, oldest first.

        If ``run`` is given, return only the jobs and services of this run.
        """
        selector = PART_OF + (f",editr1.dev/run={run}" if run else "")
        jobs = [job_view(item) for item in self.find("PyTorchJob", labelSelector=selector)]
        jobs += [service_view(item) for item in self.find("Deployment", labelSelector=selector)]
        return sorted(jobs, key=lambda job: job.created)

    def pods(self, release: str) -> tuple[PodView, ...]:
        """Return the pods of a release, sorted by replica index. The result does not contain pods of ``helm test``."""
        views = (pod_view(item) for item in self.find("Pod", labelSelector=f"{INSTANCE}={release}"))
        return tuple(sorted((view for view in views if not view.name.endswith("-test")), key=_pod_order))

    def suspend(self, name: str, suspended: bool) -> None:
        """Suspend a job, or resume it if ``suspended`` is False. Pods of a suspended job receive SIGTERM and commit a checkpoint."""
        self.patch("PyTorchJob", name, {"spec": {"runPolicy": {"suspend": suspended}}})

    def dry_run(self, objects: list[Object]) -> None:
        """Let the API server validate objects without storing them.

        Raises:
            ClusterError: the API server rejects an object. The message starts with the kind and name of the object.
        """
        for item in objects:
            try:
                self.client.apply(self.namespace, item, force=False, dry_run=True)
            except RequestRefused as error:
                what = f"{item['kind']} {item['metadata']['name']}"
                raise RequestRefused(error.status, f"{what}: {error}") from None

    def job_file(self, release: str) -> str | None:
        """Return the text of the job file in the ConfigMap of a release, or ``None`` if there is none."""
        found = self.client.get("ConfigMap", self.namespace, release)
        return ((found or {}).get("data") or {}).get("job.json")

    def delete_pods(self, release: str) -> None:
        """Delete the pods of a release at once, without a grace period."""
        self.client.delete_all("Pod", self.namespace, f"{INSTANCE}={release}", grace=0)

    def log(self, pod: str, *, container: str | None = None, tail: int | None = None) -> str:
        """Return the log of a pod, or an empty string if the pod or its log does not exist."""
        return self.client.pod_log(self.namespace, pod, container=container, tail=tail)

    def follow(self, pod: str, *, container: str, since: float) -> Iterator[str]:
        """Yield the lines of a pod's log with their timestamps, from the time ``since`` on (seconds since the epoch)."""
        return self.client.follow_log(self.namespace, pod, container=container, since=since)

    def is_allowed(self, verb: str, group: str, resource: str) -> bool:
        """Return True if the current user has permission for ``verb`` (such as ``create``) on ``resource`` in the namespace."""
        return self.client.is_allowed(self.namespace, verb, group, resource)

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or ``None`` if it does not exist or its kind is not installed in the cluster."""
        return self.client.get(kind, self.namespace, name)

    def find(self, kind: str, **query: str) -> list[Object]:
        """Return the objects of a kind. ``query`` may contain ``labelSelector`` and ``fieldSelector``."""
        return self.client.find(kind, self.namespace, **query)

    def create(self, item: Object) -> None:
        """Create an object in the namespace."""
        self.client.create(item["kind"], self.namespace, item)

    def patch(self, kind: str, name: str, body: Object) -> None:
        """Change an object by a JSON merge patch. Raises ClusterError if it does not exist."""
        if self.client.patch(kind, self.namespace, name, body) is None:
            raise ClusterError(
                f"{kind} {name!r} does not exist in namespace {self.namespace}; check the name and the namespace"
            )

    def delete(self, kind: str, name: str) -> None:
        """Delete an object. If it does not exist, nothing happens."""
        self.client.delete(kind, self.namespace, name)

    def _job(self, name: str) -> JobView | None:
        found = self.get("PyTorchJob", name)
        return None if found is None else job_view(found)

    def _service(self, name: str) -> JobView | None:
        found = self.get("Deployment", name)
        return None if found is None else service_view(found)

    def _events(self, release: str) -> tuple[EventView, ...]:
        items = self.find("Event")
        own = (event_view(item) for item in items if item["involvedObject"].get("name", "").startswith(release))
        return tuple(sorted(own, key=lambda event: event.t))


def open_namespace(config: ClusterConfig) -> ClusterNamespace:
    """Return access to the namespace in the cluster settings. Raises ClusterError if there is no valid kubeconfig."""
    client = KubernetesClient(config)
    storage = config.helm_storage or os.environ.get("HELM_DRIVER") or "secret"
    return ClusterNamespace(client, Target(client.namespace, config.context, config.kubeconfig, storage))


def _pod_order(pod: PodView) -> tuple[int, str]:
    return pod.index, pod.name
