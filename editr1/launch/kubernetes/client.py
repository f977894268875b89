"""Client for the Kubernetes API, used by the editr1 commands and by the operator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from editr1.config.cluster import ClusterConfig
from editr1.launch.kubernetes.errors import (
    ClusterError,
    ClusterUnreachable,
    RequestRefused,
    api_error,
    missing_kind,
    root_cause,
)
from editr1.launch.kubernetes.resources import RESOURCES, Resource

Object = dict[str, Any]
RequestHook = Callable[[str, str], None]
"""Function that is called before each request, with the HTTP method and the plural name of the resource."""
FIELD_MANAGER = "editr1"
TIMEOUT_SECONDS = 60
RETRIES = 3
LOG_TIMEOUT = (10, 3600)
"""Connection timeout and read timeout, in seconds, of a request that streams a log. Each new line restarts the read timeout."""
LOG_CHUNK_BYTES = 4096
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File in a pod that contains the namespace of its ServiceAccount."""


class KubernetesClient:
    """Thread-safe, blocking client for the API server of one cluster.

    Unless its docstring states otherwise, a method raises :class:`RequestRefused` if the API server rejects the request, and
    :class:`ClusterUnreachable` if the server does not respond.

    Attributes:
        namespace: Namespace from the cluster settings, else from the kubeconfig context or the pod, else ``default``.
        server: URL of the API server.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        manager: str = FIELD_MANAGER,
        timeout_s: int = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        connections: int | None = None,
        on_request: RequestHook | None = None,
    ) -> None:
        """Load the access configuration of the cluster. No request is sent.

        Args:
            config: Cluster settings with kubeconfig, context and namespace. Without a kubeconfig, a pod uses its service account.
            manager: Name of the field manager under which objects are written.
            timeout_s: Timeout of one request in whole seconds.
            retries: Maximum number of retries of a request to which the API server does not respond.
            connections: Size of the connection pool; ``None`` keeps the default of the kubernetes package.
            on_request: Function that is called before each request, for metrics.

        Raises:
            ClusterError: there is no valid kubeconfig or service account.
        """
        from kubernetes import client

        settings, namespace = _load_configuration(config)
        settings.retries = retries or False
        if connections is not None:
            settings.connection_pool_maxsize = connections
        self.namespace = namespace or "default"
        self.server: str = settings.host
        self._client = client.ApiClient(settings)
        self._manager, self._timeout_s, self._on_request = manager, timeout_s, on_request

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or ``None`` if it does not exist or its kind is not installed in the cluster."""
        return self.get_path(_resource(kind).path(namespace, name))

    def find(self, kind: str, namespace: str, **query: str) -> list[Object]:
        """Return the objects of a kind in a namespace. ``query`` may contain ``labelSelector`` and ``fieldSelector``.

        The list is empty if the kind is not installed in the cluster.
        """
        found = self._unless_missing("GET", _resource(kind).path(namespace), query=list(query.items()))
        return list((found or {}).get("items", ()))

    def get_path(self, path: str, **query: str) -> Object | None:
        """Return the JSON object that the API serves under ``path``, or ``None`` if it serves nothing there."""
        return self._unless_missing("GET", path, query=list(query.items()))

    def create(self, kind: str, namespace: str, item: Object) -> Object:
        """Create an object and return it. If the object has ``metadata.generateName``, the API server chooses the name."""
        query = [("fieldManager", self._manager)]
        return self._request("POST", _resource(kind).path(namespace), item, query=query) or {}

    def apply(
        self, namespace: str, item: Object, manager: str | None = None, *, force: bool = True, dry_run: bool = False
    ) -> Object:
        """Create or update an object by server-side apply and return it.

        Args:
            namespace: Namespace of the object.
            item: The object with all fields that ``manager`` owns.
            manager: Name of the field manager; ``None`` uses the client's field manager.
            force: Take over fields that another manager owns instead of failing with a conflict.
            dry_run: Only let the API server validate the object, without storing it.

        Raises:
            RequestRefused: the API server rejected the object. If its kind is not installed, the message says what to install.
        """
        resource, name = _resource(item["kind"]), item["metadata"]["name"]
        query = [("fieldManager", manager or self._manager)]
        query += [("force", "true")] if force else []
        query += [("dryRun", "All")] if dry_run else []
        try:
            return (
                self._request("PATCH", resource.path(namespace, name), item, "application/apply-patch+yaml", query)
                or {}
            )
        except RequestRefused as error:
            if error.status == 404 and self.missing_kinds([item["kind"]]):
                raise RequestRefused(404, missing_kind(item["kind"], item["apiVersion"])) from None
            raise

    def patch(
        self, kind: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object | None:
        """Apply a JSON merge patch to an object or to one of its subresources.

        Returns the changed object, or ``None`` if it does not exist.
        """
        path = _resource(kind).path(namespace, name, subresource)
        return self._unless_missing(
            "PATCH", path, body, "application/merge-patch+json", [("fieldManager", self._manager)]
        )

    def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        foreground: bool = False,
        grace: int | None = None,
        **preconditions: str,
    ) -> bool:
        """Delete an object.

        Args:
            kind: Kind of the object.
            namespace: Namespace of the object.
            name: Name of the object.
            foreground: Delete its dependent objects, such as the pods of a job, before the object itself.
            grace: Grace period in seconds; 0 deletes a pod without waiting for its node.
            **preconditions: ``uid`` or ``resourceVersion``. The object is deleted only if it has these values.

        Returns:
            True if the object existed and met the preconditions.
        """
        body: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if preconditions:
            body["preconditions"] = preconditions
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self._request("DELETE", _resource(kind).path(namespace, name), body)
        except RequestRefused as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    def delete_all(self, kind: str, namespace: str, selector: str, *, grace: int | None = None) -> None:
        """Delete the objects of a namespace whose labels match ``selector``."""
        body = {} if grace is None else {"gracePeriodSeconds": grace}
        self._request("DELETE", _resource(kind).path(namespace), body, query=[("labelSelector", selector)])

    def missing_kinds(self, kinds: Iterable[str]) -> list[str]:
        """Return the kinds in ``kinds`` that are not installed in the cluster."""
        missing = []
        for kind in kinds:
            resource = _resource(kind)
            served = self.get_path(resource.group_path) or {}
            if resource.plural not in {item["name"] for item in served.get("resources", ())}:
                missing.append(kind)
        return missing

    def is_allowed(self, namespace: str, verb: str, group: str, resource: str) -> bool:
        """Return True if the current user has permission for ``verb`` (such as ``create``) on ``resource`` in a namespace."""
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(((answer or {}).get("status") or {}).get("allowed"))

    def pod_log(self, namespace: str, pod: str, *, container: str | None = None, tail: int | None = None) -> str:
        """Return the log of a pod, or an empty string if the pod or its log does not exist."""
        query = [("container", container)] if container else []
        query += [("tailLines", str(tail))] if tail is not None else []
        try:
            return str(self._call("GET", _resource("Pod").path(namespace, pod, "log"), query=query, answer="str"))
        except RequestRefused as error:
            if error.status in (400, 404):
                return ""
            raise

    def follow_log(self, namespace: str, pod: str, *, container: str, since: float) -> Iterator[str]:
        """Yield the lines of a pod's log with their timestamps, until the pod ends or the connection breaks.

        Args:
            namespace: Namespace of the pod.
            pod: Name of the pod.
            container: Name of the container.
            since: Time in seconds since the epoch. Lines from before this time are left out, except possibly those of the same second.
        """
        from urllib3.exceptions import HTTPError

        seconds = max(1, int(time.time() - since) + 1)
        query = [("container", container), ("follow", "true"), ("timestamps", "true"), ("sinceSeconds", str(seconds))]
        try:
            response = self._call("GET", _resource("Pod").path(namespace, pod, "log"), query=query, answer="stream")
            rest = b""
            for chunk in response.stream(LOG_CHUNK_BYTES):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        except (ClusterError, HTTPError):
            return

    def _unless_missing(self, method: str, path: str, *arguments: Any, **keywords: Any) -> Object | None:
        try:
            return self._request(method, path, *arguments, **keywords)
        except RequestRefused as error:
            if error.status == 404:
                return None
            raise

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        query: list[tuple[str, str]] | None = None,
    ) -> Object | None:
        answer = self._call(method, path, body, content_type, query)
        if answer is not None and not isinstance(answer, dict):
            raise ClusterUnreachable(
                f"{self.server} returned a response for {path} that is not a JSON object; check the server's address"
            )
        return answer

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        query: list[tuple[str, str]] | None = None,
        answer: str = "object",
    ) -> Any:
        """Send one request and return its response.

        ``answer`` selects the type of the returned value: ``object`` is parsed JSON, ``str`` is text, and ``stream`` is the urllib3
        response.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if self._on_request is not None:
            self._on_request(method, _plural_of(path))
        stream = answer == "stream"
        accept = "application/json" if answer == "object" else "*/*"
        try:
            return self._client.call_api(
                path,
                method,
                query_params=query or [],
                header_params={"Content-Type": content_type, "Accept": accept},
                body=body,
                response_type=None if stream else answer,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=not stream,
                _request_timeout=LOG_TIMEOUT if stream else self._timeout_s,
            )
        except (ApiException, HTTPError, OSError) as error:
            raise api_error(error, self.server) from None


def _load_configuration(config: ClusterConfig) -> tuple[Any, str | None]:
    """Read the client configuration and the namespace from the service account of the pod or from a kubeconfig."""
    from kubernetes import client
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
    from kubernetes.config.kube_config import list_kube_config_contexts

    kubeconfig = str(config.kubeconfig) if config.kubeconfig else None
    in_cluster = kubeconfig is None and "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ
    settings = client.Configuration()
    remedy = "set KUBECONFIG, or kubeconfig in the cluster settings, to the path of a valid kubeconfig"
    try:
        if in_cluster:
            load_incluster_config(settings)
            return settings, config.namespace or _own_namespace()
        load_kube_config(kubeconfig, context=config.context, client_configuration=settings)
        if config.namespace is not None:
            return settings, config.namespace
        contexts, active = list_kube_config_contexts(kubeconfig)
        chosen = next((item for item in contexts if item["name"] == config.context), active)
        return settings, chosen["context"].get("namespace")
    except (ConfigException, OSError) as error:
        raise ClusterError(f"no cluster is configured: {error}; {remedy}") from None
    except Exception as error:  # A malformed kubeconfig raises nearly every exception type.
        file = kubeconfig or os.environ.get("KUBECONFIG", "~/.kube/config")
        cause = f"{type(error).__name__}: {root_cause(error)}"
        raise ClusterError(f"no cluster is configured: {file} is not a valid kubeconfig: {cause}; {remedy}") from None


def _own_namespace() -> str | None:
    """Return the namespace of the pod's ServiceAccount, which kubectl and helm use in a pod as well."""
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip() or None
    except OSError:
        return os.environ.get("EDITR1_NAMESPACE")


def _resource(kind: str) -> Resource:
    try:
        return RESOURCES[kind]
    except KeyError:
        raise RequestRefused(
            400, f"kind {kind!r} is not supported; supported kinds: {', '.join(sorted(RESOURCES))}"
        ) from None


def _plural_of(path: str) -> str:
    """Return the plural name of the resource in a path, such as ``pods`` in ``/api/v1/namespaces/team/pods/a``.

    The result is empty if the path does not belong to a namespace.
    """
    parts = path.split("/namespaces/")
    return parts[1].split("/")[1] if len(parts) > 1 and "/" in parts[1] else ""
