"""How a laptop reaches a cluster, and what every stage there shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.base import Settings


class ClusterConfig(Settings):
    """The cluster of ``editr1 submit``, ``editr1 run --on kubernetes`` and the commands that look at runs there."""

    namespace: Annotated[str | None, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")] = None
    """Namespace of every object; unset takes the one of the kubeconfig's context."""
    context: str | None = None
    """Context of the kubeconfig; unset takes the current one."""
    kubeconfig: Path | None = None
    """Kubeconfig file; unset takes KUBECONFIG or ~/.kube/config."""
    helm_storage: Literal["secret", "configmap"] | None = None
    """Where Helm keeps releases; unset takes HELM_DRIVER, else secret as Helm does. configmap works without rights on Secrets."""
    store_endpoint: str | None = None
    """S3 server as this machine reaches it, where pods reach it by another address (``store.endpoint`` of the values)."""
    values: dict[str, Any] = Field(default_factory=dict)
    """Chart values of every stage, such as ``store``, ``image.tag`` or ``tolerations``."""
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further chart values by kind or by stage name (the name wins), such as ``grpo: {nodes: 2, gpus: 8}``."""
    registry: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:-]*$")] = "editr1"
    """What stands before the stage's name in image names that the values leave open."""
    resolve_images: bool = True
    """Ask the registry which digest a tag names, and freeze that; a registry that cannot be asked leaves the tag."""
    reward_ready_timeout_seconds: Annotated[float, Field(gt=0, le=86400)] = 3600.0
    """Longest wait of a run for its reward service, weights and nodes included."""
