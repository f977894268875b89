"""The Kubernetes API as this package uses it: reads into views, the few writes that Helm does not do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.errors import (
    ClusterError,
    ClusterUnreachable,
    Errors,
    last_words,
    missing_kind,
    named,
    refusal,
    words,
)
from editr1.launch.kubernetes.helm import Target
from editr1.launch.kubernetes.parse import event_view, job_view, pod_view, service_view
from editr1.launch.kubernetes.views import EventView, JobView, PodView, ReleaseView

PART_OF = "app.kubernetes.io/part-of=editr1"
INSTANCE = "app.kubernetes.io/instance"
FIELD_MANAGER = "editr1"
JOBS = ("kubeflow.org", "v1", "pytorchjobs")


class ClusterApi:
    """One namespace of one cluster."""

    def __init__(self, config: ClusterConfig) -> None:
        from kubernetes import client
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
        from kubernetes.config.kube_config import list_kube_config_contexts

        kubeconfig = str(config.kubeconfig) if config.kubeconfig else None
        inside = kubeconfig is None and "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ
        settings = client.Configuration()
        namespace = config.namespace
        try:
            if inside:
                load_incluster_config(settings)
                namespace = namespace or os.environ.get("EDITR1_NAMESPACE")
            else:
                load_kube_config(kubeconfig, context=config.context, client_configuration=settings)
                if namespace is None:
                    contexts, active = list_kube_config_contexts(kubeconfig)
                    chosen = next((c for c in contexts if c["name"] == config.context), active)
                    namespace = chosen["context"].get("namespace")
        except (ConfigException, OSError) as error:
            raise ClusterError(f"no cluster: {error}; set KUBECONFIG or cluster.kubeconfig") from None
        except Exception as error:  # the client reads a file that is no kubeconfig with nearly every exception type
            what = f"{kubeconfig or os.environ.get('KUBECONFIG', '~/.kube/config')} is no kubeconfig"
            raise ClusterError(f"no cluster: {what}: {type(error).__name__}: {last_words(error)}") from None
        settings.retries = 3
        self._client = client.ApiClient(settings)
        self._core = client.CoreV1Api(self._client)
        self._apps = client.AppsV1Api(self._client)
        self._custom = client.CustomObjectsApi(self._client)
        self.namespace = namespace or "default"
        self.target = Target(
            self.namespace,
            config.context,
            config.kubeconfig,
            config.helm_storage or os.environ.get("HELM_DRIVER") or "secret",
        )
        self.server = settings.host

    def release(self, name: str) -> ReleaseView:
        """A release's job or service, pods and events. Raises ClusterError."""
        with self._errors(f"release {name}"):
            job = self._job(name) or self._service(name)
            pods = self._pods(f"{INSTANCE}={name}") if job else ()
            events = self._events(name) if job else ()
        return ReleaseView(name, self.namespace, job, pods, events)

    def jobs(self, run: str | None = None) -> list[JobView]:
        """Every job and service of the namespace (of one run), oldest first."""
        selector = PART_OF + (f",editr1.dev/run={run}" if run else "")
        with self._errors("jobs"):
            found = [job_view(item) for item in self._list_jobs(selector)]
            items = self._apps.list_namespaced_deployment(self.namespace, label_selector=selector).items
            found += [service_view(self._plain(item)) for item in items]
        return sorted(found, key=lambda job: job.created)

    def suspend(self, name: str, suspended: bool) -> None:
        """Hold a job (its pods get SIGTERM and checkpoint), or let it go."""
        body = {"spec": {"runPolicy": {"suspend": suspended}}}
        with self._errors(f"job {name}"):
            self._custom.patch_namespaced_custom_object(
                *JOBS[:2], self.namespace, JOBS[2], name, body, field_manager=FIELD_MANAGER
            )

    def dry_run(self, objects: list[dict[str, Any]]) -> None:
        """Have the server check every object without keeping it. Raises ClusterError that names the object."""
        from kubernetes.client import ApiException
        from kubernetes.dynamic import DynamicClient
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        with self._errors("the API's discovery"):
            dynamic = DynamicClient(self._client)
        for item in objects:
            what = f"{item['kind']} {item['metadata']['name']}"
            try:
                resource = dynamic.resources.get(api_version=item["apiVersion"], kind=item["kind"])
            except ResourceNotFoundError:
                raise ClusterError(missing_kind(item["kind"], item["apiVersion"])) from None
            try:
                dynamic.server_side_apply(
                    resource, item, namespace=self.namespace, field_manager=FIELD_MANAGER, dry_run="All"
                )
            except ApiException as error:
                if error.status == 404 and not named(error):
                    # What the client remembers of the cluster's kinds may be older than the cluster.
                    raise ClusterError(missing_kind(item["kind"], item["apiVersion"])) from None
                raise refusal(error)(f"{what}: {words(error)}") from None

    def log(self, pod: str, *, container: str | None = None, tail: int | None = None) -> str:
        """Log of a pod, empty while it has none."""
        from kubernetes.client import ApiException

        try:
            return str(self._core.read_namespaced_pod_log(pod, self.namespace, container=container, tail_lines=tail))
        except ApiException as error:
            if error.status in (400, 404):
                return ""
            raise refusal(error)(f"log of {pod}: {words(error)}") from None

    def follow(self, pod: str, *, container: str, since: float) -> Iterator[str]:
        """Lines of a pod's log from ``since`` (seconds since the epoch) on, until the pod ends or the stream breaks."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            response = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                timestamps=True,
                since_seconds=max(1, int(time.time() - since) + 1),
                _preload_content=False,
                _request_timeout=(10, 3600),
            )
            rest = b""
            for chunk in response.stream(4096):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        except (ApiException, HTTPError):
            return

    def can(self, verb: str, group: str, resource: str) -> bool:
        """Whether this user may do that in the namespace."""
        from kubernetes import client

        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(
                    namespace=self.namespace, verb=verb, group=group, resource=resource
                )
            )
        )
        with self._errors("access review"):
            done = client.AuthorizationV1Api(self._client).create_self_subject_access_review(review)
        return bool(done.status.allowed)

    def job_file(self, name: str) -> str | None:
        """The job file of a release, as its ConfigMap holds it."""
        from kubernetes.client import ApiException

        with self._errors(f"ConfigMap {name}"):
            try:
                found = self._core.read_namespaced_config_map(name, self.namespace)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        return (found.data or {}).get("job.json")

    def delete_pods(self, release: str) -> None:
        """Remove what is left of a release's pods at once."""
        with self._errors(f"pods of {release}"):
            self._core.delete_collection_namespaced_pod(
                self.namespace, label_selector=f"{INSTANCE}={release}", grace_period_seconds=0
            )

    def pods(self, release: str) -> tuple[PodView, ...]:
        """The pods of a release."""
        with self._errors(f"pods of {release}"):
            return self._pods(f"{INSTANCE}={release}")

    def raw(self, path: str) -> Any:
        """GET a path of the API as JSON; None for 404. Raises ClusterError."""
        from kubernetes.client import ApiException

        try:
            return self._client.call_api(
                path, "GET", response_type="object", auth_settings=["BearerToken"],
                _return_http_data_only=True,
            )  # fmt: skip
        except ApiException as error:
            if error.status == 404:
                return None
            raise refusal(error)(f"{path}: {words(error)}") from None
        except Exception as error:
            raise ClusterUnreachable(f"{self.server} cannot be reached: {last_words(error)}") from None

    def custom(self, version: str, plural: str, name: str) -> Any:
        """A custom resource; None where there is none. Raises ClusterError."""
        return self.raw(f"/apis/{version}/namespaces/{self.namespace}/{plural}/{name}")

    def customs(self, version: str, plural: str) -> list[dict[str, Any]]:
        """Every custom resource of the namespace; none where the cluster does not know them. Raises ClusterError."""
        return list((self.raw(f"/apis/{version}/namespaces/{self.namespace}/{plural}") or {}).get("items", ()))

    def create_custom(self, version: str, plural: str, body: dict[str, Any]) -> None:
        """Create a custom resource. Raises ClusterError."""
        with self._errors(f"{body['kind']} {body['metadata']['name']}"):
            self._custom.create_namespaced_custom_object(
                *version.split("/"), self.namespace, plural, body, field_manager=FIELD_MANAGER
            )

    def patch_custom(self, version: str, plural: str, name: str, body: dict[str, Any]) -> None:
        """Merge into a custom resource. Raises ClusterError."""
        with self._errors(f"{plural} {name}"):
            self._custom.patch_namespaced_custom_object(
                *version.split("/"), self.namespace, plural, name, body, field_manager=FIELD_MANAGER
            )

    def delete_custom(self, version: str, plural: str, name: str) -> None:
        """Delete a custom resource. Raises ClusterError."""
        with self._errors(f"{plural} {name}"):
            self._custom.delete_namespaced_custom_object(*version.split("/"), self.namespace, plural, name)

    def _job(self, name: str) -> JobView | None:
        from kubernetes.client import ApiException

        try:
            return job_view(self._custom.get_namespaced_custom_object(*JOBS[:2], self.namespace, JOBS[2], name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _list_jobs(self, selector: str) -> list[dict[str, Any]]:
        from kubernetes.client import ApiException

        try:
            found = self._custom.list_namespaced_custom_object(
                *JOBS[:2], self.namespace, JOBS[2], label_selector=selector
            )
        except ApiException as error:
            if error.status == 404:
                return []
            raise
        return list(found["items"])

    def _service(self, name: str) -> JobView | None:
        from kubernetes.client import ApiException

        try:
            return service_view(self._plain(self._apps.read_namespaced_deployment(name, self.namespace)))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _pods(self, selector: str) -> tuple[PodView, ...]:
        items = self._core.list_namespaced_pod(self.namespace, label_selector=selector).items
        views = (pod_view(self._plain(item)) for item in items)
        return tuple(sorted((v for v in views if not v.name.endswith("-test")), key=lambda v: (v.index, v.name)))

    def _events(self, release: str) -> tuple[EventView, ...]:
        found = [self._plain(item) for item in self._core.list_namespaced_event(self.namespace).items]
        mine = [item for item in found if item["involvedObject"].get("name", "").startswith(release)]
        return tuple(sorted((event_view(item) for item in mine), key=lambda event: event.t))

    def _plain(self, item: Any) -> dict[str, Any]:
        plain: dict[str, Any] = self._client.sanitize_for_serialization(item)
        return plain

    def _errors(self, what: str) -> Errors:
        return Errors(what, self.server)
