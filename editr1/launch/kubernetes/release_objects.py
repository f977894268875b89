"""Find the Helm releases of a run, and delete the objects of a release together with its job.

A finished job is deleted after ``ttlSecondsAfterFinished``, but its release is not uninstalled. The release's ConfigMap,
its ServiceAccount, and the object in which Helm stores the release would remain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from editr1.launch.kubernetes.errors import ClusterError
from editr1.launch.kubernetes.helm import Helm, Object
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.resources import PART_OF, RESOURCES

_JOB = "PyTorchJob"
log = logging.getLogger("editr1.launch")


def releases_of(api: ClusterNamespace, helm: Helm, name: str) -> list[str]:
    """Return the names of the releases of the run ``name``, or of the release ``name``, in alphabetical order.

    A release is also found by its ConfigMap, because its job may have been deleted already.
    """
    selector = f"{PART_OF},editr1.dev/run={name}"
    found = {job.name for job in api.jobs(name)}
    found |= {item["metadata"]["name"] for item in api.find("ConfigMap", labelSelector=selector)}
    if not found and (
        any(job.name == name for job in api.jobs()) or helm.chart_of_release(name, api.target) is not None
    ):
        found = {name}
    return sorted(found)


def remove_with_job(api: ClusterNamespace, release: str, objects: Sequence[Object]) -> None:
    """Make the job of a release the owner of the release's other objects, so that Kubernetes deletes them with the job.

    Nothing happens if the release has no job, as that of a reward service, or if the current user has no permission to
    change an object. The objects then remain until ``editr1 cancel`` or ``helm uninstall``.
    """
    try:
        job = api.get(_JOB, release) if any(item["kind"] == _JOB for item in objects) else None
        if job is None:
            return
        owner = {
            "apiVersion": job["apiVersion"],
            "kind": _JOB,
            "name": release,
            "uid": job["metadata"]["uid"],
            "blockOwnerDeletion": False,
        }
        storage = "ConfigMap" if api.target.storage == "configmap" else "Secret"
        others = [(item["kind"], item["metadata"]["name"]) for item in objects if item["kind"] != _JOB]
        stored = api.find(storage, labelSelector=f"owner=helm,name={release}")
        others += [(storage, item["metadata"]["name"]) for item in stored]
        for kind, name in others:
            if kind in RESOURCES:
                api.patch(kind, name, {"metadata": {"ownerReferences": [owner]}})
    except ClusterError as error:
        log.info("release %s: its objects will remain after its job is deleted: %s", release, error)
