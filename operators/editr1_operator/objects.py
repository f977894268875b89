"""Render the Kubernetes objects of a stage with its Helm chart, and make the run their owner."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from editr1.config.cluster import ClusterConfig
from editr1.config.merge import deep_merge
from editr1.config.store import StoreConfig
from editr1.launch.job_builder import JobContext, RewardEndpoints, build_job, chart_values
from editr1.launch.kubernetes.helm import Helm, Object, chart_version, image_of
from editr1.launch.kubernetes.registry import with_digest
from editr1.launch.kubernetes.run_status import StageStatus
from editr1.launch.kubernetes.values import chart_of, release_name, service_url, shared_values
from editr1.runs.next_step import service_of
from editr1.runs.resolve import ResolvedStage, full_config
from editr1.runs.spec import RunBody, StageSpec
from editr1.serving.identity import RewardIdentity
from editr1_operator.cache import ATTEMPT
from editr1_operator.client import MANAGER
from editr1_operator.crd import GROUP, KIND, VERSION
from editr1_operator.trace import traceparent

SERVICE_STAGE = "serve"
"""Stage name in the job file of every reward service.

The name is fixed, because several runs share a reward service, and their stages can have different names.
"""
MANAGED_BY = "app.kubernetes.io/managed-by"
"""Label with the name of the program that manages an object."""


def owner_reference(name: str, uid: str, *, controller: bool) -> Object:
    """Return an owner reference to a run. Kubernetes deletes an object when its last owner is deleted."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": controller,
        "blockOwnerDeletion": False,
    }


def current_digest(stage: StageSpec, cluster: ClusterConfig) -> str:
    """Return the digest to which the registry currently maps the container image tag in the stage's settings.

    The result is empty if the settings already contain a digest, if they disable ``resolve_images``, or if the registry does
    not return a digest.
    """
    values = shared_values(cluster, stage.kind, stage.name)
    if not cluster.resolve_images or values.get("image", {}).get("digest"):
        return ""
    return str(with_digest(values, chart_version(chart_of(stage.kind))).get("image", {}).get("digest", ""))


def shared_name(
    stage: StageSpec, model: str, digest: str, seed: int, cluster: ClusterConfig, store: StoreConfig
) -> str:
    """Return the name of a reward service.

    The name is derived from the model and the settings, so runs that need the same service share it.
    """
    identity = {
        "model": model,
        "image": digest,
        "store": store.model_dump(mode="json"),
        "config": full_config(stage.kind, stage.config, seed),
        "values": shared_values(cluster, stage.kind, stage.name),
        "chart": chart_version(chart_of(stage.kind)),
    }
    return "rrm-" + hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


class Objects:
    """Renderer of the Kubernetes objects of the stages of one run."""

    def __init__(
        self,
        helm: Helm,
        cluster: ClusterConfig,
        store: StoreConfig,
        meta: Mapping[str, Any],
        spec: RunBody,
        revision: str,
    ) -> None:
        self._helm, self._cluster, self._store, self._meta, self._spec = helm, cluster, store, meta, spec
        self._revision = revision

    def of_job(self, stage: StageSpec, status: StageStatus, service: StageStatus | None, attempt: int) -> list[Object]:
        """Return the objects of an attempt of a stage that runs as a job.

        Args:
            stage: Stage in the specification of the run.
            status: Status of the stage, which contains the digests of its inputs.
            service: Status of the reward service that the stage uses, if any.
            attempt: Number of the attempt, counted from 1.

        Raises:
            ConfigError: the chart rejects the values.
        """
        reward = None
        if service is not None:
            url = service_url(service.release, self._meta["namespace"])
            reward = RewardEndpoints((url,), service.inputs["model"])
        job = build_job(
            stage,
            JobContext(self._meta["name"], self._spec.seed, self._store, self._revision),
            _resolved(stage, status, self._spec.seed),
            reward,
        )
        parent = traceparent(self._meta["uid"], stage.name, attempt)
        values = chart_values(job, self._cluster, stage=stage, traceparent=parent)
        # The operator starts further attempts, so Kubernetes must not restart failed pods.
        values = deep_merge(values, {"restartPolicy": "Never", **_image(status)})
        objects = self._render(stage, release_name(job.run, stage.name), values, controller=True)
        for item in objects:
            if item["kind"] == "PyTorchJob":
                item["metadata"].setdefault("annotations", {})[ATTEMPT] = str(attempt)
        return objects

    def of_service(self, stage: StageSpec, status: StageStatus) -> list[Object]:
        """Return the objects of a reward service.

        They are the same for every run that shares the service, except for the owner.

        Raises:
            ConfigError: the chart rejects the values.
        """
        release = status.release
        config = full_config(stage.kind, stage.config, self._spec.seed)
        key = hashlib.sha256(release.encode()).hexdigest()
        shared = stage.model_copy(update={"name": SERVICE_STAGE})
        job = build_job(shared, JobContext(release, 0, self._store), ResolvedStage(config, status.inputs, key))
        # Cluster settings for the stage's name in the run take precedence over cluster settings for its chart.
        stages, chart = self._cluster.stages, chart_of(stage.kind)
        named = deep_merge(stages.get(chart, {}), stages.get(stage.name, {}))
        merged = self._cluster.model_copy(update={"stages": {**stages, chart: named}})
        values = deep_merge(chart_values(job, merged), _image(status))
        return self._render(stage, release, values, controller=False)

    def _render(self, stage: StageSpec, release: str, values: Mapping[str, Any], *, controller: bool) -> list[Object]:
        objects = copy.deepcopy(self._helm.render(chart_of(stage.kind), release, self._meta["namespace"], values))
        reference = owner_reference(self._meta["name"], self._meta["uid"], controller=controller)
        for item in objects:
            item["metadata"]["ownerReferences"] = [reference]
            item["metadata"].setdefault("labels", {})[MANAGED_BY] = MANAGER
        return objects


def _resolved(stage: StageSpec, status: StageStatus, seed: int) -> ResolvedStage:
    served = RewardIdentity.model_validate_json(status.reward) if status.reward else None
    return ResolvedStage(full_config(stage.kind, stage.config, seed), status.inputs, status.key, served)


def _image(status: StageStatus) -> dict[str, Any]:
    return {"image": {"digest": status.image_digest}} if status.image_digest else {}


def image_and_chart(stage: StageSpec, objects: list[Object]) -> dict[str, str]:
    """Return the container image and the chart that a stage's rendered objects use, for the run's record."""
    chart = chart_of(stage.kind)
    return {"image": image_of(objects), "chart": f"{chart} {chart_version(chart)}"}


def service_status(stage: StageSpec, spec: RunBody, statuses: Mapping[str, StageStatus]) -> StageStatus | None:
    """Return the status of the reward service that ``stage`` uses, or None if it uses no service of the run."""
    service = service_of(stage, spec.stages)
    return statuses[service.name] if service else None
