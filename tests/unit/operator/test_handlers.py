"""The kopf handlers cache each reported object and reconcile its run."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import kopf
import pytest

from editr1.launch.kubernetes.errors import ClusterUnreachable
from editr1_operator import handlers
from editr1_operator.handlers import Handlers
from editr1_operator.options import Options
from editr1_operator.probes import Probes

OWNER = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "name": "quick", "uid": "u"}


def run(version: str) -> dict[str, Any]:
    return {
        "kind": "EditRun",
        "metadata": {"namespace": "lab", "name": "quick", "uid": "u", "resourceVersion": version},
    }


def job(version: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"namespace": "lab", "name": "quick-sft", "uid": "j", "resourceVersion": version}
    meta |= {"creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [OWNER]}
    spec: dict[str, Any] = {"runPolicy": {}, "pytorchReplicaSpecs": {}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, "spec": spec, "status": {}}


def answer(value: Any) -> Any:
    """Return the value, or raise it if it is an error."""
    if isinstance(value, Exception):
        raise value
    return value


async def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_watch_events_reconcile_the_run_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    reconciled: list[tuple[str, str]] = []
    deleted: list[str] = []
    probes, missing = Probes(), [ClusterUnreachable("503"), ["PyTorchJob"], []]
    client = SimpleNamespace(missing_kinds=lambda _kinds: answer(missing.pop(0)))
    reconciler = SimpleNamespace(
        reconcile=reconciled.append, record_deletion=lambda body: deleted.append(body["metadata"]["name"])
    )
    monkeypatch.setattr(handlers, "KINDS_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(handlers, "make_client", lambda connections: client)
    monkeypatch.setattr(handlers, "Reconciler", lambda *_: reconciler)

    async def work() -> None:
        operator = Handlers(Options(metrics_port=0), probes)
        await operator.start(kopf.OperatorSettings())
        assert missing == [], "the operator started before every kind was served"
        await until(lambda: probes.answer("/readyz")[0] == 200)
        await operator.on_run({"type": "ADDED", "object": run("1")})
        await until(lambda: len(reconciled) == 1)
        await operator.on_job({"type": "MODIFIED", "object": job("2")})
        await until(lambda: len(reconciled) == 2)
        await operator.on_job({"type": None, "object": job("2")})
        await operator.on_run({"type": "DELETED", "object": run("1")})
        assert deleted == ["quick"]
        await operator.stop()

    asyncio.run(work())
    assert reconciled == [("lab", "quick")] * 2, "a cached version in the list of a watch was reconciled again"
