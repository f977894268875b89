"""Convert objects in the JSON format of the Kubernetes API to the data classes in :mod:`editr1.launch.kubernetes.views`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editr1.durations import parse_timestamp
from editr1.launch.kubernetes.views import Condition, ContainerView, EventView, JobView, PodView

SUSPENDED_BY_RUN = "editr1.dev/suspended-by-run"
"""Annotation of a job that the operator suspended because its run is suspended. Only such a job is resumed by the operator."""


def _time(text: str | None) -> float:
    return parse_timestamp(text) if text else 0.0


def _conditions(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    return tuple(
        Condition(c["type"], c["status"], c.get("reason") or "", c.get("message") or "")
        for c in status.get("conditions") or ()
    )


def job_view(item: Mapping[str, Any]) -> JobView:
    """Convert a PyTorchJob to a :class:`JobView`. The package kubeflow-training parses the JSON object."""
    from kubeflow.training import ApiClient, KubeflowOrgV1PyTorchJob
    from kubeflow.training.constants import constants
    from kubeflow.training.utils.utils import FakeResponse

    job: KubeflowOrgV1PyTorchJob = ApiClient().deserialize(FakeResponse(item), "KubeflowOrgV1PyTorchJob")
    labels = job.metadata.labels or {}
    status = job.status
    return JobView(
        name=job.metadata.name,
        run=labels.get("editr1.dev/run", job.metadata.name),
        stage=labels.get("editr1.dev/stage", ""),
        kind=labels.get("editr1.dev/kind", ""),
        created=job.metadata.creation_timestamp.timestamp() if job.metadata.creation_timestamp else 0.0,
        suspended=bool(job.spec.run_policy.suspend),
        suspended_by_run=SUSPENDED_BY_RUN in (job.metadata.annotations or {}),
        queue=labels.get(constants.LOCAL_QUEUE_LABEL, ""),
        wanted=sum(replica.replicas or 1 for replica in job.spec.pytorch_replica_specs.values()),
        ready=sum(part.active or 0 for part in ((status and status.replica_statuses) or {}).values()),
        conditions=tuple(
            Condition(c.type, c.status, c.reason or "", c.message or "") for c in ((status and status.conditions) or ())
        ),
    )


def service_view(item: Mapping[str, Any]) -> JobView:
    """Convert the Deployment of a reward service to a :class:`JobView`."""
    meta, status = item["metadata"], item.get("status") or {}
    labels = meta.get("labels") or {}
    return JobView(
        name=meta["name"],
        run=labels.get("editr1.dev/run", meta["name"]),
        stage=labels.get("editr1.dev/stage", ""),
        kind=labels.get("editr1.dev/kind", "serve"),
        created=_time(meta.get("creationTimestamp")),
        service=True,
        wanted=int(item["spec"].get("replicas") if item["spec"].get("replicas") is not None else 1),
        ready=int(status.get("readyReplicas") or 0),
        conditions=_conditions(status),
    )


def pod_view(item: Mapping[str, Any]) -> PodView:
    """Convert a Pod to a :class:`PodView`."""
    meta, status = item["metadata"], item.get("status") or {}
    labels = meta.get("labels") or {}
    containers = [_container_view(item, init=True) for item in status.get("initContainerStatuses") or ()]
    containers += [_container_view(item) for item in status.get("containerStatuses") or ()]
    return PodView(
        name=meta["name"],
        uid=meta.get("uid", ""),
        phase=status.get("phase", "Pending"),
        node=item["spec"].get("nodeName") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        created=_time(meta.get("creationTimestamp")),
        terminating=bool(meta.get("deletionTimestamp")),
        deletion_deadline=_time(meta.get("deletionTimestamp")),
        role=labels.get("training.kubeflow.org/replica-type", ""),
        index=int(labels.get("training.kubeflow.org/replica-index", 0)),
        conditions=_conditions(status),
        containers=tuple(containers),
    )


def _container_view(item: Mapping[str, Any], *, init: bool = False) -> ContainerView:
    state = item.get("state") or {}
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    return ContainerView(
        name=item["name"],
        ready=bool(item.get("ready")),
        restarts=int(item.get("restartCount") or 0),
        waiting=waiting.get("reason") or "",
        message=waiting.get("message") or terminated.get("message") or "",
        exit_code=terminated.get("exitCode"),
        terminated=terminated.get("reason") or "",
        image=item.get("image") or "",
        image_id=item.get("imageID") or "",
        running="running" in state,
        init=init,
    )


def event_view(item: Mapping[str, Any]) -> EventView:
    """Convert an Event to an :class:`EventView`."""
    t = item.get("lastTimestamp") or item.get("eventTime") or item["metadata"].get("creationTimestamp")
    return EventView(
        object=item["involvedObject"].get("name", ""),
        reason=item.get("reason") or "",
        message=item.get("message") or "",
        warning=item.get("type") == "Warning",
        t=_time(t),
    )
