"""Carry out the actions of a plan in the cluster."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.helm import Object
from editr1.launch.kubernetes.parse import SUSPENDED_BY_RUN
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import (
    Action,
    DeleteJob,
    EnsureService,
    ForceDeletePod,
    Launch,
    ReleaseService,
    SetSuspended,
)
from editr1_operator.cache import Cache
from editr1_operator.client import MANAGER
from editr1_operator.objects import MANAGED_BY, Objects, image_and_chart, service_status

_APPLIED_LAST = ("ScaledObject", "HorizontalPodAutoscaler", "Deployment", "PyTorchJob")
"""Kinds of objects that depend on the stage's other objects. They are applied last, in this order."""

log = logging.getLogger("editr1.operator")


class Applier:
    """Executor for the actions that the operator has planned for one run."""

    def __init__(
        self,
        client: KubernetesClient,
        cache: Cache,
        objects: Objects,
        spec: RunBody,
        status: RunStatus,
        meta: Mapping[str, Any],
    ) -> None:
        self._client, self._cache, self._objects, self._spec = client, cache, objects, spec
        self._stages = {stage.name: stage for stage in spec.stages}
        self._statuses = {stage.name: stage for stage in status.stages}
        self._namespace, self._uid = meta["namespace"], meta["uid"]
        self.images_and_charts: dict[str, dict[str, str]] = {}
        """Container image and chart of each stage whose objects were created or updated, by stage name."""

    def apply(self, actions: Sequence[Action]) -> dict[str, StageStatus]:
        """Carry out all actions. If one of them fails, the others are still carried out.

        Returns:
            The new status of each stage whose objects could not be created, by stage name.

        Raises:
            ClusterUnreachable: the API server did not respond. The next reconciliation makes the same decision again.
        """
        failed: dict[str, StageStatus] = {}
        unreachable: ClusterUnreachable | None = None
        for action in actions:
            try:
                self._apply_action(action)
            except ClusterUnreachable as error:
                unreachable = error  # The other actions may still succeed.
            except ConfigError as error:
                if isinstance(action, Launch | EnsureService):
                    failed[action.stage] = self._failed(action.stage, error)
                else:
                    log.warning("cannot carry out the action %s: %s", action, error)
        if unreachable is not None:
            raise unreachable
        return failed

    def _apply_action(self, action: Action) -> None:
        stage, status = self._stages[action.stage], self._statuses[action.stage]
        if isinstance(action, Launch):
            service = service_status(stage, self._spec, self._statuses)
            self._apply(stage, self._objects.of_job(stage, status, service, action.attempt), shared=False)
        elif isinstance(action, EnsureService):
            self._apply(stage, self._objects.of_service(stage, status), shared=True)
        elif isinstance(action, ReleaseService):
            self._release(self._objects.of_service(stage, status))
        elif isinstance(action, DeleteJob):
            self._client.delete("PyTorchJob", self._namespace, status.release, foreground=True, uid=action.uid)
        elif isinstance(action, ForceDeletePod):
            self._client.delete("Pod", self._namespace, action.pod, grace=0, uid=action.uid)
        elif isinstance(action, SetSuspended):
            # A merge patch removes an annotation whose value is None.
            annotations = {SUSPENDED_BY_RUN: "true" if action.suspended else None}
            body = {"metadata": {"annotations": annotations}, "spec": {"runPolicy": {"suspend": action.suspended}}}
            self._client.patch("PyTorchJob", self._namespace, status.release, body)

    def _apply(self, stage: StageSpec, objects: list[Object], *, shared: bool) -> None:
        self.images_and_charts[stage.name] = image_and_chart(stage, objects)
        for item in sorted(objects, key=_order):
            what = f"{item['kind']} {item['metadata']['name']}"
            self._check_owner(item, what, shared)
            try:
                applied = self._put(item, shared)
            except RequestRefused as error:
                raise RequestRefused(error.status, f"{what}: {error}") from None
            if "deletionTimestamp" in applied.get("metadata", {}):
                raise RequestRefused(409, f"{what} is still being deleted; the operator creates it again afterwards")
            if item["kind"] in ("PyTorchJob", "Deployment"):
                self._cache.put_job({"kind": item["kind"], **applied}, deleted=False)

    def _put(self, item: Object, shared: bool) -> Object:
        """Create or update an object.

        An object of a reward service can have several runs as owners. Each run uses its own field manager for its owner
        reference, so that server-side apply keeps the references of the other runs.
        """
        if not shared:
            return self._client.apply(self._namespace, item)
        meta = item["metadata"]
        content = {key: value for key, value in meta.items() if key != "ownerReferences"}
        self._client.apply(self._namespace, {**item, "metadata": content})
        claim = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "metadata": {"name": meta["name"], "ownerReferences": meta["ownerReferences"]},
        }
        return self._client.apply(self._namespace, claim, f"{MANAGER}-{self._uid}")

    def _check_owner(self, item: Object, what: str, shared: bool) -> None:
        """Raise RequestRefused if an object of the same kind and name exists that this run must not change."""
        found = self._client.get(item["kind"], self._namespace, item["metadata"]["name"])
        if found is None:
            return
        meta = found["metadata"]
        if (meta.get("labels") or {}).get(MANAGED_BY) != MANAGER:
            raise RequestRefused(
                409, f"{what} already exists and is not managed by the operator; delete it or rename the run"
            )
        owners = {owner["uid"] for owner in meta.get("ownerReferences") or ()}
        if owners and not shared and self._uid not in owners:
            raise RequestRefused(
                409, f"{what} still belongs to an earlier run with this name; waiting until that object is deleted"
            )

    def _release(self, objects: list[Object]) -> None:
        """Remove this run from the owners of a reward service's objects, and delete the objects that have no other owner.

        The Deployment is handled last, because the operator checks its owners to decide whether the run still uses
        the service. Each request contains the resource version of its object, so the API server rejects it if another
        run has become an owner in the meantime. The method then returns early, and the next reconciliation tries
        again.
        """
        for item in sorted(objects, key=lambda item: item["kind"] == "Deployment"):
            kind, name = item["kind"], item["metadata"]["name"]
            found = self._client.get(kind, self._namespace, name)
            if found is None:
                continue
            version = found["metadata"]["resourceVersion"]
            owners = found["metadata"].get("ownerReferences") or []
            others = [owner for owner in owners if owner["uid"] != self._uid]
            if not others:
                if not self._client.delete(kind, self._namespace, name, resourceVersion=version):
                    return
            elif len(others) < len(owners):
                body = {"metadata": {"resourceVersion": version, "ownerReferences": others}}
                try:
                    self._client.patch(kind, self._namespace, name, body)
                except RequestRefused as error:
                    if error.status == 409:
                        return
                    raise

    def _failed(self, stage: str, error: ConfigError) -> StageStatus:
        """Return the status of a stage whose objects could not be created because of ``error``."""
        reason, message = Reason.SETTINGS, str(error)  # The chart rejected values from the namespace's settings.
        if isinstance(error, RequestRefused):
            reason, message = Reason.REFUSED, f"the API server rejected the stage's objects: {error}"
        return self._statuses[stage].model_copy(
            update={"state": RunState.STARTING, "reason": reason, "message": message}
        )


def _order(item: Object) -> int:
    return _APPLIED_LAST.index(item["kind"]) + 1 if item["kind"] in _APPLIED_LAST else 0
