"""Events are listed once for all runs of a namespace, and the cache recognizes versions of objects."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from editr1_operator import namespace_events
from editr1_operator.cache import Cache
from editr1_operator.namespace_events import NamespaceEvents


class Server:
    """A fake API server with two events. ``gate`` blocks the response, and a list request takes ``seconds`` of the fake clock."""

    def __init__(self, clock: list[float] | None = None, seconds: float = 0.0) -> None:
        self.lists, self.clock, self.seconds = 0, clock or [0.0], seconds
        self.called, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def find(self, kind: str, namespace: str, **query: str) -> list[dict[str, Any]]:
        assert (kind, query) == ("Event", {})
        self.lists += 1
        self.called.set()
        assert self.gate.wait(20)
        self.clock[0] += self.seconds
        return [_event("b", "later", "2026-11-26T05:00:02Z"), _event("a", "first", "2026-11-26T05:00:01Z")]


def _event(name: str, message: str, at: str) -> dict[str, Any]:
    return {
        "involvedObject": {"name": name},
        "reason": "FailedCreate",
        "message": message,
        "type": "Warning",
        "lastTimestamp": at,
        "metadata": {},
    }


def test_concurrent_readers_share_one_list_request() -> None:
    server = Server()
    server.gate.clear()
    events = NamespaceEvents(server)  # type: ignore[arg-type]
    found: dict[str, list[str]] = {}

    def read(name: str) -> None:
        found[name] = [event.message for event in events.of("lab", (name,), 5.0)]

    threads = [threading.Thread(target=read, args=(name,)) for name in ("a", "b", "c", "a", "b")]
    for thread in threads:
        thread.start()
    assert server.called.wait(20)
    server.gate.set()
    for thread in threads:
        thread.join()
    assert server.lists == 1
    assert found == {"a": ["first"], "b": ["later"], "c": []}
    assert [event.message for event in events.of("lab", ("a", "b"), 5.0)] == ["first", "later"]


def test_maximum_age_0_or_another_namespace_causes_a_new_list_request() -> None:
    server = Server()
    events = NamespaceEvents(server)  # type: ignore[arg-type]
    for _ in range(2):
        events.of("lab", ("a",), 0)
    events.of("other", ("a",), 5.0)
    assert server.lists == 3


def test_slow_list_response_is_cached_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(namespace_events.time, "monotonic", lambda: clock[0])
    server = Server(clock, seconds=0.1)
    events = NamespaceEvents(server)  # type: ignore[arg-type]
    events.of("lab", ("a",), 0.01)
    clock[0] += 1.8
    events.of("lab", ("a",), 0.01)
    assert server.lists == 1, "a list that took 0.1 s was read again within 2 s"
    clock[0] += 0.2
    events.of("lab", ("a",), 0.01)
    assert server.lists == 2


def _run(version: str) -> dict[str, Any]:
    return {"kind": "EditRun", "metadata": {"namespace": "lab", "name": "r", "uid": "u", "resourceVersion": version}}


def _pod(version: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": "r-curate"}
    meta = {"namespace": "lab", "name": "p", "uid": "p1", "resourceVersion": version, "labels": labels}
    return {"kind": "Pod", "metadata": meta, "spec": {"containers": []}, "status": {"phase": "Running"}}


def _job(version: str, kind: str = "PyTorchJob") -> dict[str, Any]:
    meta = {"namespace": "lab", "name": "r-curate", "uid": "j", "resourceVersion": version}
    meta["creationTimestamp"] = "2026-11-26T05:00:00Z"
    spec: dict[str, Any] = {"runPolicy": {}, "pytorchReplicaSpecs": {}}
    return {"apiVersion": "kubeflow.org/v1", "kind": kind, "metadata": meta, "spec": spec, "status": {}}


def test_cache_recognizes_the_version_of_each_kind() -> None:
    cache = Cache()
    for make in (_run, _pod, _job):
        assert not cache.has(make("1"))
    cache.put_run(_run("1"), deleted=False)
    cache.put_pod(_pod("1"), deleted=False)
    cache.put_job(_job("1"), deleted=False)
    for make in (_run, _pod, _job):
        assert cache.has(make("1"))
        assert not cache.has(make("2"))
    cache.put_pod(_pod("2"), deleted=True)
    assert not cache.has(_pod("1"))
