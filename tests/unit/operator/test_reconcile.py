"""Effects of a reconciliation in which the store, the API server or an event fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import StoreError, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.runs.name_in_use import stated_settings
from editr1.runs.record import Missing, RunRecord, StageResult, save_record, save_result
from editr1.runs.spec import Metadata, RunBody, RunSpec, StageSpec
from editr1.serving.identity import RewardUnreachable
from editr1_operator import jobs, reconcile
from editr1_operator.actions import LoadResult, Resolve
from editr1_operator.cache import Cache
from editr1_operator.reconcile import Reconciler
from editr1_operator.resolution import Resolver

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


class Scenario:
    """A reconciler whose decision is always :data:`FAILED`. ``done`` lists the effects in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.done: list[str] = []
        self.event_error: Exception | None = None
        self.archive_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.merge_error: Exception | None = None
        self.reasons: list[str] = []
        client: Any = SimpleNamespace(patch=self._merge, create=self._create)
        store = open_store(StoreConfig(url=(folder / "store").as_uri()))
        settings: Any = SimpleNamespace(of_namespace=lambda *_: SimpleNamespace(store=store), versions={})
        notifier: Any = SimpleNamespace(notify=lambda _event: self.done.append("notified"))
        self.cache = Cache()
        self.cache.put_run(BODY, deleted=False)
        self.reconciler = Reconciler(client, self.cache, SimpleNamespace(), settings, notifier, SimpleNamespace())  # type: ignore[arg-type]
        monkeypatch.setattr(reconcile._Reconciliation, "_decide", lambda *_: (FAILED, []))
        monkeypatch.setattr(
            reconcile._Reconciliation,
            "_make_applier",
            lambda *_: SimpleNamespace(apply=self._apply, images_and_charts={}),
        )
        monkeypatch.setattr(reconcile._Reconciliation, "_save_record", lambda *_: self.done.append("recorded"))
        monkeypatch.setattr(reconcile, "archive_attempts", self._archive)
        monkeypatch.setattr(jobs, "RESULT_SECONDS", -1.0)  # a result that is not found is not looked for again

    def _merge(self, _kind: str, _namespace: str, _name: str, patch: dict[str, Any], _part: str) -> dict[str, Any]:
        if self.merge_error:
            raise self.merge_error
        self.done.append("status")
        self.reasons.append(patch["status"].get("reason"))
        return {**BODY, "metadata": {**BODY["metadata"], "resourceVersion": "2"}, "status": patch["status"]}  # type: ignore[dict-item]

    def _create(self, *_: Any) -> None:
        if self.event_error:
            raise self.event_error
        self.done.append("event")

    def _archive(self, *_: Any) -> None:
        if self.archive_error:
            raise self.archive_error
        self.done.append("archived")

    def _apply(self, _actions: Any) -> dict[str, Any]:
        if self.apply_error:
            raise self.apply_error
        return {}


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scenario:
    return Scenario(monkeypatch, tmp_path)


def test_attempt_is_archived_before_the_status_reports_its_end(scenario: Scenario) -> None:
    scenario.archive_error = StoreError("the bucket is unreachable")
    with pytest.raises(StoreError):
        scenario.reconciler.reconcile(KEY)
    assert scenario.reasons == [Reason.STORE_UNREACHABLE], "the status reported the end before the attempt was archived"
    scenario.archive_error = None
    scenario.done.clear()
    assert scenario.reconciler.reconcile(KEY) is None
    assert scenario.done[:2] == ["archived", "status"] and {"notified", "recorded"} <= set(scenario.done)
    assert scenario.reasons[-1] == Reason.NO_RESULT


def test_no_action_is_applied_after_a_conflicting_write(scenario: Scenario) -> None:
    scenario.merge_error, scenario.apply_error = RequestRefused(409, "conflict"), AssertionError("applied")
    assert scenario.reconciler.reconcile(KEY) is not None
    assert scenario.done == ["archived"]


def test_failed_event_does_not_prevent_notification_and_record(scenario: Scenario) -> None:
    scenario.event_error = ClusterUnreachable("429")
    scenario.reconciler.reconcile(KEY)
    assert scenario.done == ["archived", "status", "notified", "recorded"]


def test_record_is_saved_if_an_action_does_not_reach_the_api_server(scenario: Scenario) -> None:
    scenario.apply_error = ClusterUnreachable("timeout")
    with pytest.raises(ClusterUnreachable):
        scenario.reconciler.reconcile(KEY)
    assert scenario.done[-1] == "recorded"


@pytest.mark.parametrize(("seed", "annotation", "refused"), [(0, "", False), (7, "", True), (7, "true", False)])
def test_run_with_other_settings_than_the_record_of_its_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, annotation: str, refused: bool
) -> None:
    scenario = Scenario(monkeypatch, tmp_path)
    recorded = RunBody(seed=seed, stages=[StageSpec(name="data", kind="curate")])
    store = open_store(StoreConfig(url=(tmp_path / "store").as_uri()))
    save_record(store, RunRecord(name="quick", seed=seed, created=0.0, stated=stated_settings(recorded)))
    meta = {**BODY["metadata"], "annotations": {"editr1.dev/replace": annotation}}  # type: ignore[dict-item]
    scenario.cache.put_run({**BODY, "metadata": meta}, deleted=False)
    scenario.reconciler.reconcile(KEY)
    assert ("recorded" in scenario.done) is not refused
    assert scenario.reasons[0] == (Reason.INVALID if refused else Reason.NO_RESULT)


def test_reward_servers_that_do_not_answer_are_waited_for_until_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    store = open_store(StoreConfig(url=(tmp_path / "store").as_uri()))
    model = store.commit(tmp_path / "m", kind="import", stage="import").digest
    inputs = {"cases": model, "editor": model}
    config = {"reward_ready_timeout_seconds": 60}
    stage = StageSpec(name="grpo", kind="grpo", inputs=inputs, reward="http://127.0.0.1:1", config=config)
    body = RunBody(stages=[stage])
    run = RunSpec(api_version="editr1.dev/v1alpha1", kind="EditRun", metadata=Metadata(name="quick"), spec=body)
    settings: Any = SimpleNamespace(store=store, cluster=ClusterConfig(resolve_images=False))
    status = RunStatus(stages=[StageStatus(name="grpo", kind="grpo")])
    unanswered: dict[str, float] = {}
    for now in (100.0, 159.0):
        with pytest.raises(RewardUnreachable, match=r"http://127\.0\.0\.1:1/v1/info: ConnectError"):
            Resolver(run, settings, now, unanswered).apply(Resolve("grpo"), status)
    failed = Resolver(run, settings, 161.0, unanswered).apply(Resolve("grpo"), status).stage_of("grpo")
    assert failed is not None and failed.state is RunState.FAILED and "http://127.0.0.1:1" in failed.message
    stated = stage.model_copy(update={"reward_digest": model})
    run = run.model_copy(update={"spec": RunBody(stages=[stated])})
    found = Resolver(run, settings, 161.0, unanswered).apply(Resolve("grpo"), status).stage_of("grpo")
    assert found is not None and found.key and json.loads(found.reward)["model"] == model


def test_new_edit_run_starts_a_stage_with_a_partial_result_again_once(tmp_path: Path) -> None:
    store = open_store(StoreConfig(url=(tmp_path / "store").as_uri()))
    body = RunBody(stages=[StageSpec(name="data", kind="curate")])
    run = RunSpec(api_version="editr1.dev/v1alpha1", kind="EditRun", metadata=Metadata(name="quick"), spec=body)
    settings: Any = SimpleNamespace(store=store, cluster=ClusterConfig(resolve_images=False))

    def commit(key: str, missing: Missing) -> None:
        save_result(store, "quick", "data", StageResult(key=key, missing=missing))

    def first_look() -> tuple[Resolver, RunStatus]:
        resolver = Resolver(run, settings, 1.0)
        return resolver, resolver.apply(Resolve("data"), RunStatus(stages=[StageStatus(name="data", kind="curate")]))

    _, resolved = first_look()
    key = resolved.stages[0].key
    commit(key, Missing(causes={"think: UnreadableAnswer": 1}, total=2))
    for _ in range(2):  # an operator that is restarted before it writes the status looks again
        resolver, resolved = first_look()
        assert resolver.results == {"data": None}
    commit(key, Missing(causes={"think: UnreadableAnswer": 1}, total=2))
    resolver = Resolver(run, settings, 2.0)
    resolver.apply(LoadResult("data"), resolved)
    assert resolver.results["data"] is not None, "the attempt of this EditRun ended with the same outcome"
    commit(key, Missing())
    resolver, _ = first_look()
    assert resolver.results["data"] is not None
