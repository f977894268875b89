"""Settings for access to a cluster, and Helm chart values shared by all stages that run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.base import Settings
from editr1.config.names import Namespace


class ClusterConfig(Settings):
    """Cluster settings of ``editr1 submit``, ``editr1 run --on kubernetes`` and the commands that inspect runs on a cluster."""

    namespace: Namespace | None = None
    """Namespace in which all objects are created. Defaults to the namespace of the kubeconfig context."""
    context: str | None = None
    """Kubeconfig context. Defaults to the current context."""
    kubeconfig: Path | None = None
    """Kubeconfig file. Defaults to the file in the environment variable KUBECONFIG, or else to ~/.kube/config."""
    helm_storage: Literal["secret", "configmap"] | None = None
    """Kind of object in which Helm stores releases: "secret" or "configmap". Defaults to the environment variable
    HELM_DRIVER, or to "secret" if that variable is unset. With "configmap", Helm needs no permissions on Secrets."""
    store_endpoint: str | None = None
    """Address of the S3 server as seen from this machine. Set it if pods use a different address (``store.endpoint``
    in ``values``)."""
    use_operator: bool = True
    """Let the operator in the cluster execute runs. If False, or if the cluster has no operator, ``editr1 run`` starts the
    stages from this machine. Set it to False if another team's operator does not watch your namespace."""
    values: dict[str, Any] = Field(default_factory=dict)
    """Helm chart values of every stage, such as ``store``, ``image.tag`` or ``tolerations``."""
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Additional chart values of individual stages, such as ``grpo: {nodes: 2, gpus: 8}``. A key is the kind or the
    name of a stage. If both exist, the values under the name take precedence."""
    registry: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*$")] = "editr1"
    """Registry and path of the container images. The image of a stage is ``<registry>/<chart>``, unless the stage's
    chart values set ``image.repository``."""
    resolve_images: bool = True
    """Look up the digest of each container image tag in the image registry. Pods use this digest, and it is recorded
    for the run. If the registry cannot be reached, pods use the tag."""
    reward_ready_timeout_seconds: Annotated[float, Field(gt=0, le=86400)] = 3600.0
    """Maximum time, in seconds, that a run waits for its reward service to become ready. This time includes the
    provisioning of nodes and the loading of weights."""
