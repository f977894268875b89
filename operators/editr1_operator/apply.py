"""Carry actions out against the API server. Each may be carried out twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.errors import missing_kind
from editr1.launch.kubernetes.helm import Object
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action, Drop, Hold, Launch, Leave, Remove, Serve
from editr1_operator.cache import Cache
from editr1_operator.cluster import MANAGER, Cluster, Refused, Unreachable
from editr1_operator.objects import MANAGED_BY, Objects, facts_of, service_status

_LAST = ("ScaledObject", "HorizontalPodAutoscaler", "Deployment", "PyTorchJob")
"""Applied after what they need."""

log = logging.getLogger("editr1.operator")


class Applier:
    """Carries out what was decided for one run."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        objects: Objects,
        spec: RunBody,
        status: RunStatus,
        meta: Mapping[str, Any],
    ) -> None:
        self._cluster, self._cache, self._objects, self._spec = cluster, cache, objects, spec
        self._stages = {stage.name: stage for stage in spec.stages}
        self._known = {stage.name: stage for stage in status.stages}
        self._namespace, self._uid = meta["namespace"], meta["uid"]
        self.facts: dict[str, dict[str, str]] = {}
        """Image and chart of the stages that were applied."""

    def apply(self, actions: Sequence[Action]) -> dict[str, StageStatus]:
        """Carry all out. Returns the status of each stage whose objects were refused, and why.

        Raises:
            Unreachable: the API server did not answer; the same decision will be made again.
        """
        failed: dict[str, StageStatus] = {}
        unreachable: Unreachable | None = None
        for action in actions:
            try:
                self._one(action)
            except ConfigError as error:
                # The namespace's settings make values that a chart refuses; they may be mended while the run waits.
                if isinstance(action, Launch | Serve):
                    failed[action.stage] = self._refused(action.stage, Reason.SETTINGS, str(error))
                else:
                    log.warning("%s: %s", action, error)
            except Refused as error:
                if isinstance(action, Launch | Serve):
                    why = f"the API server refuses it: {error}"
                    failed[action.stage] = self._refused(action.stage, Reason.REFUSED, why)
                else:
                    log.warning("%s: %s", action, error)
            except Unreachable as error:
                unreachable = error  # what else is to be done may still go through
        if unreachable is not None:
            raise unreachable
        return failed

    def _one(self, action: Action) -> None:
        stage, known = self._stages[action.stage], self._known[action.stage]
        if isinstance(action, Launch):
            service = service_status(stage, self._spec, self._known)
            self._apply(stage, self._objects.of_job(stage, known, service, action.attempt), shared=False)
        elif isinstance(action, Serve):
            self._apply(stage, self._objects.of_service(stage, known), shared=True)
        elif isinstance(action, Leave):
            self._leave(self._objects.of_service(stage, known))
        elif isinstance(action, Remove):
            self._cluster.delete("PyTorchJob", self._namespace, known.release, foreground=True, uid=action.uid)
        elif isinstance(action, Drop):
            self._cluster.delete("Pod", self._namespace, action.pod, grace=0, uid=action.uid)
        elif isinstance(action, Hold):
            body = {"spec": {"runPolicy": {"suspend": action.suspended}}}
            self._cluster.merge("PyTorchJob", self._namespace, known.release, body)

    def _apply(self, stage: StageSpec, objects: list[Object], *, shared: bool) -> None:
        self.facts[stage.name] = facts_of(stage, objects)
        for item in sorted(objects, key=_order):
            what = f"{item['kind']} {item['metadata']['name']}"
            self._check_owner(item, what, shared)
            try:
                applied = self._put(item, shared)
            except Refused as error:
                if error.code == 404:
                    raise Refused(404, missing_kind(item["kind"], item["apiVersion"])) from None
                raise Refused(error.code, f"{what}: {error}") from None
            if "deletionTimestamp" in applied.get("metadata", {}):
                raise Refused(409, f"{what} is still being removed")
            if item["kind"] in ("PyTorchJob", "Deployment"):
                self._cache.put_job({"kind": item["kind"], **applied}, gone=False)

    def _put(self, item: Object, shared: bool) -> Object:
        """Apply an object. Of a shared one each run applies its reference under a name of its own, to take it away again."""
        if not shared:
            return self._cluster.apply(self._namespace, item)
        meta = item["metadata"]
        content = {key: value for key, value in meta.items() if key != "ownerReferences"}
        self._cluster.apply(self._namespace, {**item, "metadata": content})
        claim = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "metadata": {"name": meta["name"], "ownerReferences": meta["ownerReferences"]},
        }
        return self._cluster.apply(self._namespace, claim, f"{MANAGER}-{self._uid}")

    def _check_owner(self, item: Object, what: str, shared: bool) -> None:
        """Raise Refused where an object of that name is there that is not this run's to change."""
        found = self._cluster.get(item["kind"], self._namespace, item["metadata"]["name"])
        if found is None:
            return
        meta = found["metadata"]
        if (meta.get("labels") or {}).get(MANAGED_BY) != MANAGER:
            raise Refused(409, f"{what} is there already and is not the operator's")
        owners = {owner["uid"] for owner in meta.get("ownerReferences") or ()}
        if owners and not shared and self._uid not in owners:
            raise Refused(409, f"{what} still belongs to an earlier run of this name")

    def _leave(self, objects: list[Object]) -> None:
        """Take this run's reference away; what nobody else refers to is deleted, the Deployment last: it says who owns it.

        A run that joins meanwhile changes the object's version; then this ends, and is decided anew.
        """
        for item in sorted(objects, key=lambda item: item["kind"] == "Deployment"):
            kind, name = item["kind"], item["metadata"]["name"]
            found = self._cluster.get(kind, self._namespace, name)
            if found is None:
                continue
            version = found["metadata"]["resourceVersion"]
            owners = found["metadata"].get("ownerReferences") or []
            others = [owner for owner in owners if owner["uid"] != self._uid]
            if not others:
                if not self._cluster.delete(kind, self._namespace, name, resourceVersion=version):
                    return
            elif len(others) < len(owners):
                body = {"metadata": {"resourceVersion": version, "ownerReferences": others}}
                try:
                    self._cluster.merge(kind, self._namespace, name, body)
                except Refused as error:
                    if error.code == 409:
                        return
                    raise

    def _refused(self, stage: str, reason: Reason, message: str) -> StageStatus:
        return self._known[stage].model_copy(update={"state": RunState.STARTING, "reason": reason, "message": message})


def _order(item: Object) -> int:
    return _LAST.index(item["kind"]) + 1 if item["kind"] in _LAST else 0
