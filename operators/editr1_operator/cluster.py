"""The API server as the operator uses it: server-side apply, deletes with preconditions, a status, few reads. Blocking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editr1.launch.kubernetes.errors import named
from editr1_operator.crd import GROUP, PLURAL, VERSION
from editr1_operator.metrics import API_REQUESTS

Object = dict[str, Any]
MANAGER = "editr1-operator"
TIMEOUT_SECONDS = 20

_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Event": "/api/v1/namespaces/{}/events",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PyTorchJob": "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs",
    "ScaledObject": "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "PrometheusRule": "/apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules",
    "EditRun": f"/apis/{GROUP}/{VERSION}/namespaces/{{}}/{PLURAL}",
}
"""Every kind that the charts render, and those that are read."""


class Refused(Exception):
    """The API server said no; ``code`` is its HTTP status, the message its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(Exception):
    """The API server did not answer."""


class Cluster:
    """Calls of one cluster; safe for several threads."""

    def __init__(self, connections: int = 16) -> None:
        from kubernetes import client
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

        settings = client.Configuration()
        try:
            load_incluster_config(settings)
        except ConfigException:
            load_kube_config(client_configuration=settings)
        settings.connection_pool_maxsize = connections
        settings.retries = False
        self._client = client.ApiClient(settings)

    def apply(self, namespace: str, item: Object, manager: str = MANAGER) -> Object:
        """Server-side apply; what is there already becomes what ``item`` says. Raises Refused, Unreachable."""
        path = f"{self._path(item['kind'], namespace)}/{item['metadata']['name']}"
        query = [("fieldManager", manager), ("force", "true")]
        return self._call("PATCH", path, item, "application/apply-patch+yaml", query) or {}

    def create(self, kind: str, namespace: str, item: Object) -> None:
        """Create an object whose name the server makes. Raises Refused, Unreachable."""
        self._call("POST", self._path(kind, namespace), item)

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
        """Delete; ``uid`` or ``resourceVersion`` are preconditions. Returns whether the object was there and met them."""
        body: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if preconditions:
            body["preconditions"] = preconditions
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self._call("DELETE", f"{self._path(kind, namespace)}/{name}", body)
        except Refused as error:
            if error.code in (404, 409):
                return False
            raise
        return True

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, None where there is none."""
        try:
            return self._call("GET", f"{self._path(kind, namespace)}/{name}")
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def find(self, kind: str, namespace: str, **query: str) -> list[Object]:
        """Objects of a namespace; ``labelSelector`` and ``fieldSelector`` narrow them down."""
        try:
            found = self._call("GET", self._path(kind, namespace), query=list(query.items()))
        except Refused as error:
            if error.code == 404:
                return []
            raise
        return list((found or {}).get("items", ()))

    def merge(self, kind: str, namespace: str, name: str, body: Mapping[str, Any], part: str = "") -> Object | None:
        """Merge-patch an object, or its subresource ``part``; None where there is none."""
        path = f"{self._path(kind, namespace)}/{name}{'/' + part if part else ''}"
        query = [("fieldManager", MANAGER)]
        try:
            return self._call("PATCH", path, body, "application/merge-patch+json", query)
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def missing(self, kinds: Iterable[str]) -> list[str]:
        """Those of ``kinds`` that the cluster does not know. Raises Refused, Unreachable."""
        unknown = []
        for kind in kinds:
            group, _, rest = _PATHS[kind].partition("/namespaces/{}/")
            try:
                found = self._call("GET", group) or {}
            except Refused as error:
                if error.code != 404:
                    raise
                found = {}
            if rest not in {item["name"] for item in found.get("resources", ())}:
                unknown.append(kind)
        return unknown

    def _path(self, kind: str, namespace: str) -> str:
        try:
            return _PATHS[kind].format(namespace)
        except KeyError:
            raise Refused(400, f"the operator makes no {kind}") from None

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        query: list[tuple[str, str]] | None = None,
    ) -> Object | None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        API_REQUESTS.labels(method, _resource(path)).inc()
        try:
            found = self._client.call_api(
                path,
                method,
                query_params=query or [],
                header_params={"Content-Type": content, "Accept": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except ApiException as error:
            raise _refusal(error) from None
        except (HTTPError, OSError) as error:
            raise Unreachable(str(error)) from None
        return found  # type: ignore[no-any-return]


def _resource(path: str) -> str:
    """``pods`` of ``/api/v1/namespaces/team/pods/a``; empty where the API's own list of kinds is asked for."""
    parts = path.split("/namespaces/")
    return parts[1].split("/")[1] if len(parts) > 1 else ""


def _refusal(error: Any) -> Exception:
    message = named(error) or str(error.reason)
    if error.status >= 500 or error.status == 429 or error.status == 0:
        return Unreachable(message)
    return Refused(int(error.status), message)
