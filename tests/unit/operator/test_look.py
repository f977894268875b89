"""What one look keeps and tells when something fails in the middle of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import StoreError, open_store
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1_operator import reconcile
from editr1_operator.cache import Cache
from editr1_operator.reconcile import Reconciler

KEY = ("lab", "quick")
BODY = {
    "apiVersion": "editr1.dev/v1alpha1",
    "kind": "EditRun",
    "metadata": {"namespace": "lab", "name": "quick", "uid": "u1", "generation": 1, "resourceVersion": "1"},
    "spec": {"stages": [{"name": "data", "kind": "curate"}]},
}
FAILED = RunStatus(
    state=RunState.FAILED,
    reason=Reason.NO_RESULT,
    observed_generation=1,
    stages=[StageStatus(name="data", kind="curate", state=RunState.FAILED, reason=Reason.NO_RESULT, message="broken")],
)


class Looked:
    """A reconciler whose decision is :data:`FAILED`; ``done`` tells in which order things happened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.done: list[str] = []
        self.event_error: Exception | None = None
        self.keep_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.merge_error: Exception | None = None
        self.said: list[str] = []
        client: Any = SimpleNamespace(patch=self._merge, create=self._create)
        store = open_store(StoreConfig(url=(folder / "store").as_uri()))
        settings: Any = SimpleNamespace(site=lambda *_: SimpleNamespace(store=store), versions={})
        notifier: Any = SimpleNamespace(tell=lambda _event: self.done.append("told"))
        self.cache = Cache()
        self.cache.put_run(BODY, gone=False)
        self.reconciler = Reconciler(client, self.cache, SimpleNamespace(), settings, notifier, SimpleNamespace())  # type: ignore[arg-type]
        monkeypatch.setattr(reconcile._Look, "_decided", lambda *_: (FAILED, []))
        monkeypatch.setattr(reconcile._Look, "_applier", lambda *_: SimpleNamespace(apply=self._apply, facts={}))
        monkeypatch.setattr(reconcile._Look, "_record", lambda *_: self.done.append("recorded"))
        monkeypatch.setattr(reconcile, "keep_ended", self._keep)

    def _merge(self, _kind: str, _namespace: str, _name: str, patch: dict[str, Any], _part: str) -> dict[str, Any]:
        if self.merge_error:
            raise self.merge_error
        self.done.append("status")
        self.said.append(patch["status"].get("reason"))
        return {**BODY, "metadata": {**BODY["metadata"], "resourceVersion": "2"}, "status": patch["status"]}  # type: ignore[dict-item]

    def _create(self, *_: Any) -> None:
        if self.event_error:
            raise self.event_error
        self.done.append("event")

    def _keep(self, *_: Any) -> None:
        if self.keep_error:
            raise self.keep_error
        self.done.append("kept")

    def _apply(self, _actions: Any) -> dict[str, Any]:
        if self.apply_error:
            raise self.apply_error
        return {}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Looked:
    return Looked(monkeypatch, tmp_path)


def test_evidence_is_kept_before_the_status_says_that_an_attempt_ended(looked: Looked) -> None:
    looked.keep_error = StoreError("the bucket is away")
    with pytest.raises(StoreError):
        looked.reconciler.look(KEY)
    assert looked.said == [Reason.STORE_UNREACHABLE], "the next look finds the rest undone and does it"
    looked.keep_error = None
    looked.done.clear()
    assert looked.reconciler.look(KEY) is None
    assert looked.done[:2] == ["kept", "status"] and {"told", "recorded"} <= set(looked.done)
    assert looked.said[-1] == Reason.NO_RESULT


def test_nothing_is_carried_out_on_a_status_that_somebody_else_changed(looked: Looked) -> None:
    looked.merge_error, looked.apply_error = RequestRefused(409, "conflict"), AssertionError("carried out")
    assert looked.reconciler.look(KEY) is not None
    assert looked.done == ["kept"]


def test_an_event_that_cannot_be_written_costs_no_notice_and_no_record(looked: Looked) -> None:
    looked.event_error = ClusterUnreachable("429")
    looked.reconciler.look(KEY)
    assert looked.done == ["kept", "status", "told", "recorded"]


def test_an_action_that_meets_no_server_is_tried_again_and_the_record_is_written(looked: Looked) -> None:
    looked.apply_error = ClusterUnreachable("timeout")
    with pytest.raises(ClusterUnreachable):
        looked.reconciler.look(KEY)
    assert looked.done[-1] == "recorded"
