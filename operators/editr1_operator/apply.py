"""Carry actions out against the API server. Each may be carried out twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editr1.config.loader import ConfigError
from editr1.runs.kubernetes.errors import missing_kind
from editr1.runs.kubernetes.helm import Object
from editr1.runs.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.actions import Action, Hold, Launch, Leave, Remove, Serve
from editr1_operator.cache import Cache
from editr1_operator.cluster import MANAGER, Cluster, Refused
from editr1_operator.objects import Objects, facts_of, service_status

_LAST = ("ScaledObject", "HorizontalPodAutoscaler", "Deployment", "PyTorchJob")
"""Applied after what they need; removed in the order that this gives from its end."""


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
        failed = {}
        for action in actions:
            try:
                self._one(action)
            except ConfigError as error:
                failed[action.stage] = self._refused(action.stage, RunState.FAILED, Reason.INVALID, str(error))
            except Refused as error:
                failed[action.stage] = self._refused(
                    action.stage, RunState.STARTING, Reason.REFUSED, f"the API server refuses it: {error}"
                )
        return failed

    def _one(self, action: Action) -> None:
        stage, known = self._stages[action.stage], self._known[action.stage]
        if isinstance(action, Launch):
            service = service_status(stage, self._spec, self._known)
            self._apply(stage, self._objects.of_job(stage, known, service, action.attempt), MANAGER)
        elif isinstance(action, Serve):
            # Each owner applies under a name of its own, so that its reference is its own to take away.
            self._apply(stage, self._objects.of_service(stage, known), f"{MANAGER}-{self._uid}")
        elif isinstance(action, Leave):
            self._leave(self._objects.of_service(stage, known))
        elif isinstance(action, Remove):
            self._cluster.delete("PyTorchJob", self._namespace, known.release, foreground=True, uid=action.uid)
        elif isinstance(action, Hold):
            body = {"spec": {"runPolicy": {"suspend": action.suspended}}}
            self._cluster.merge("PyTorchJob", self._namespace, known.release, body)

    def _apply(self, stage: StageSpec, objects: list[Object], manager: str) -> None:
        self.facts[stage.name] = facts_of(stage, objects)
        for item in sorted(objects, key=_order):
            try:
                applied = self._cluster.apply(self._namespace, item, manager)
            except Refused as error:
                if error.code == 404:
                    raise Refused(404, missing_kind(item["kind"], item["apiVersion"])) from None
                raise Refused(error.code, f"{item['kind']} {item['metadata']['name']}: {error}") from None
            if item["kind"] in ("PyTorchJob", "Deployment"):
                self._cache.put_job({"kind": item["kind"], **applied}, gone=False)

    def _leave(self, objects: list[Object]) -> None:
        """Take this run's reference away; what nobody else refers to is deleted, the Deployment first.

        A run that joins meanwhile changes the object's version, and the delete does not happen.
        """
        for item in sorted(objects, key=_order, reverse=True):
            kind, name = item["kind"], item["metadata"]["name"]
            found = self._cluster.get(kind, self._namespace, name)
            if found is None:
                continue
            version = found["metadata"]["resourceVersion"]
            owners = found["metadata"].get("ownerReferences") or []
            others = [owner for owner in owners if owner["uid"] != self._uid]
            if not others:
                self._cluster.delete(kind, self._namespace, name, resourceVersion=version)
            elif len(others) < len(owners):
                body = {"metadata": {"resourceVersion": version, "ownerReferences": others}}
                self._cluster.merge(kind, self._namespace, name, body)

    def _refused(self, stage: str, state: RunState, reason: Reason, message: str) -> StageStatus:
        return self._known[stage].model_copy(update={"state": state, "reason": reason, "message": message})


def _order(item: Object) -> int:
    return _LAST.index(item["kind"]) + 1 if item["kind"] in _LAST else 0
