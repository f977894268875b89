"""The kinds of Kubernetes objects that this project reads or writes, and the paths of their objects in the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass

from editr1.runs.spec import API_VERSION

PART_OF = "app.kubernetes.io/part-of=editr1"
"""Label selector that matches every object of the charts of this project."""
INSTANCE = "app.kubernetes.io/instance"
"""Key of the label that contains the release name of an object."""
EDITRUN, EDITRUNS = "EditRun", "editruns"
"""Kind and plural name of the custom resource of a run."""


@dataclass(frozen=True)
class Resource:
    """API version and plural name of a namespaced kind of Kubernetes objects."""

    api_version: str
    plural: str

    @property
    def group_path(self) -> str:
        """Path of the kind's API group and version. A request for this path lists the installed kinds of the group."""
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of all objects in ``namespace``, of the object ``name``, or of a subresource of that object."""
        parts = (self.group_path, "namespaces", namespace, self.plural, name, subresource)
        return "/".join(part for part in parts if part)


RESOURCES = {
    "ConfigMap": Resource("v1", "configmaps"),
    "Event": Resource("v1", "events"),
    "Pod": Resource("v1", "pods"),
    "Secret": Resource("v1", "secrets"),
    "Service": Resource("v1", "services"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "ResourceQuota": Resource("v1", "resourcequotas"),
    "Deployment": Resource("apps/v1", "deployments"),
    "HorizontalPodAutoscaler": Resource("autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "PyTorchJob": Resource("kubeflow.org/v1", "pytorchjobs"),
    "ScaledObject": Resource("keda.sh/v1alpha1", "scaledobjects"),
    "LocalQueue": Resource("kueue.x-k8s.io/v1beta1", "localqueues"),
    "PodMonitor": Resource("monitoring.coreos.com/v1", "podmonitors"),
    "PrometheusRule": Resource("monitoring.coreos.com/v1", "prometheusrules"),
    EDITRUN: Resource(API_VERSION, EDITRUNS),
}
