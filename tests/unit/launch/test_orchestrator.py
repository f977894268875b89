"""The orchestrator with real processes; a short script replaces every stage."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.artifacts import open_store
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.launch import orchestrator
from editr1.launch.job_builder import JobContext, build_job
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.local.lock import inherited_lock
from editr1.launch.orchestrator import GRACE_SECONDS, RunStopped, StageFailed
from editr1.runs.partial import accept
from editr1.runs.record import State, load_record
from editr1.runs.resolve import is_complete
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec


def spec(model: str, *, retries: int = 2, seed: int = 0, **sft: Any) -> RunSpec:
    stages = [
        StageSpec(name="curate", kind="curate", retries=retries),
        StageSpec(
            name="sft", kind="sft", inputs={"rows": "stage:curate/rows", "model": model}, config=sft, retries=retries
        ),
        StageSpec(name="serve", kind="serve", inputs={"model": "stage:sft/model"}),
        StageSpec(
            name="grpo", kind="grpo", inputs={"cases": "stage:curate/cases", "editor": model}, reward="serve", retries=0
        ),
    ]
    return RunSpec(
        api_version=API_VERSION, kind="EditRun", metadata=Metadata(name="r"), spec=RunBody(seed=seed, stages=stages)
    )


def test_stages_run_in_order_and_service_starts_and_ends_with_its_client(scripted: Any, model: str) -> None:
    record, any_started, watcher = scripted(spec(model))
    assert any_started
    assert record.state is State.DONE
    assert [e for e in watcher.events if e[0] != "stage_progress"] == [
        ("stage_started", "curate"), ("stage_ended", "curate"),
        ("stage_started", "sft"), ("stage_ended", "sft"),
        ("stage_started", "serve"), ("service_ready", "serve"),
        ("stage_started", "grpo"), ("stage_ended", "grpo"), ("stage_ended", "serve"),
    ]  # fmt: skip
    assert record.stages["sft"].inputs["rows"] == record.stages["curate"].outputs["rows"]
    assert ("stage_progress", "sft") in watcher.events


def started(watcher: Any) -> list[str]:
    return [name for event, name in watcher.events if event == "stage_started"]


def test_stage_with_a_partial_result_runs_once_per_command_until_it_is_complete(scripted: Any, model: str) -> None:
    plan = ["partial", "partial", 0]
    first, _, watcher = scripted(spec(model), curate=plan)
    assert first.state is State.DONE and started(watcher) == ["curate", "sft", "serve", "grpo"]
    assert first.stages["curate"].missing.sentence("curate") == (
        "curate: 1 of 3 items have no usable model answer (decompose: RequestRefused: 1); repeat the command to"
        " request them again, or accept the result with: editr1 runs accept"
    )
    second, _, watcher = scripted(spec(model), curate=plan)
    assert second.state is State.DONE and started(watcher) == ["curate"]
    assert second.stages["curate"].outputs == first.stages["curate"].outputs and second.stages["curate"].missing
    third, _, watcher = scripted(spec(model), curate=plan)
    assert started(watcher) == ["curate", "sft", "serve", "grpo"] and not third.stages["curate"].missing
    assert third.stages["curate"].outputs != first.stages["curate"].outputs
    _, any_started, watcher = scripted(spec(model), curate=plan)
    assert not any_started and not started(watcher)


def test_accepted_partial_result_is_up_to_date(scripted: Any, model: str, tmp_path: Path) -> None:
    first, _, _ = scripted(spec(model), curate=["partial"])
    store = open_store(StoreConfig(url=(tmp_path / "run" / "store").as_uri()))
    assert not is_complete(spec(model), first, store)
    accept(store, first, "curate")
    again, any_started, _ = scripted(spec(model), curate=["partial"])
    assert not any_started and again.stages["curate"].missing.accepted
    assert is_complete(spec(model), again, store)


def test_failed_repetition_does_not_make_a_partial_result_complete(scripted: Any, model: str) -> None:
    plan = ["partial", 2, "partial", 0]
    scripted(spec(model), curate=plan)
    with pytest.raises(StageFailed, match="stage curate: permanent error"):
        scripted(spec(model), curate=plan)
    record, _, watcher = scripted(spec(model), curate=plan)
    assert started(watcher) == ["curate"] and record.stages["curate"].missing
    record, _, watcher = scripted(spec(model), curate=plan)
    assert "sft" in started(watcher) and not record.stages["curate"].missing


def test_second_run_starts_only_stages_affected_by_changed_settings(scripted: Any, model: str) -> None:
    scripted(spec(model))
    _, any_started, watcher = scripted(spec(model))
    assert not any_started
    assert {name for name, _ in watcher.events} == {"stage_skipped"}
    _, any_started, watcher = scripted(spec(model, learning_rate=0.5))
    assert any_started
    assert ("stage_skipped", "curate") in watcher.events
    assert ("stage_started", "sft") in watcher.events


def test_run_is_complete_until_an_input_or_setting_changes(scripted: Any, model: str, tmp_path: Path) -> None:
    record, _, _ = scripted(spec(model))
    store = open_store(StoreConfig(url=(tmp_path / "run" / "store").as_uri()))
    assert is_complete(spec(model), record, store)
    assert not is_complete(spec(model, learning_rate=0.5), record, store)
    assert not is_complete(spec(model, seed=1), record, store)
    record.stages["grpo"].state = State.INTERRUPTED
    assert not is_complete(spec(model), record, store)
    (tmp_path / "base" / "weights").write_text("other")
    record.stages["grpo"].state = State.DONE
    assert not is_complete(spec(model), record, store)


def test_record_has_the_git_revision_of_the_last_run_that_started_a_stage(
    scripted: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(revision: str, **sft: Any) -> str:
        monkeypatch.setattr("editr1.launch.origin.git_revision", lambda: revision)
        return str(scripted(spec(model, **sft))[0].git_revision)

    assert at("one") == "one"
    assert at("two") == "one"  # No stage was started.
    assert at("three", learning_rate=0.5) == "three"


def test_retryable_exit_code_is_retried_and_recorded_per_attempt(scripted: Any, model: str) -> None:
    record, _, watcher = scripted(spec(model), sft=[143, 137, 0])
    assert [a.exit_code for a in record.stages["sft"].attempts] == [143, 137, 0]
    assert watcher.events.count(("stage_retried", "sft")) == 2
    assert record.stages["sft"].attempts[0].reason == "12:00:00 ERROR editr1: the stage failed"


def test_permanent_exit_code_ends_the_run_with_code_and_reason(scripted: Any, model: str, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"sft: permanent error \(exit code 3\).*the stage failed") as caught:
        scripted(spec(model), sft=[3])
    assert caught.value.exit_code == 3
    saved = load_record(open_store(StoreConfig(url=(tmp_path / "run" / "store").as_uri())), "r")
    assert saved is not None
    assert (saved.state, saved.stages["sft"].state) == (State.FAILED, State.FAILED)
    record, _, watcher = scripted(spec(model), sft=[0])
    assert record.state is State.DONE
    assert ("stage_skipped", "curate") in watcher.events


def test_retries_are_limited(scripted: Any, model: str) -> None:
    with pytest.raises(StageFailed, match=r"no retries are left \(retries: 1\)"):
        scripted(spec(model, retries=1), sft=[129])


def test_stop_request_cancels_the_stage_and_next_run_continues(scripted: Any, model: str, tmp_path: Path) -> None:
    def stop() -> bool:
        return (tmp_path / "run" / "stages" / "sft" / "starts").exists()

    with pytest.raises(RunStopped):
        scripted(spec(model), stop, sft=["sleep"])
    record, _, _ = scripted(spec(model), sft=[0])
    assert record.state is State.DONE
    assert [a.exit_code for a in record.stages["sft"].attempts] == [143, 0]


def test_second_process_in_the_same_folder_is_rejected(scripted: Any, model: str, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process"):
            scripted(spec(model))


def test_wait_for_stages_of_an_earlier_command_is_reported_and_can_be_stopped(
    scripted: Any, model: str, tmp_path: Path
) -> None:
    waits: list[str] = []
    observer = SimpleNamespace(run_waits=waits.append)
    (tmp_path / "run").mkdir()
    stop_requests = iter([False, False, True])
    with inherited_lock(tmp_path / "run" / ".stages.lock", ""), pytest.raises(RunStopped):
        scripted(spec(model), lambda: next(stop_requests), options={"observer": observer})
    assert waits == ["a stage process of an earlier command is still running"]


def test_stage_that_exceeds_its_deadline_is_stopped_and_fails(scripted: Any, model: str) -> None:
    late = spec(model)
    stages = [
        stage.model_copy(update={"deadline_seconds": 2.0}) if stage.name == "sft" else stage
        for stage in late.spec.stages
    ]
    late = late.model_copy(update={"spec": late.spec.model_copy(update={"stages": stages})})
    with pytest.raises(StageFailed, match=r"sft: did not finish within deadline_seconds \(2 s\)"):
        scripted(late, sft=["sleep"])
    record, _, _ = scripted(spec(model), sft=[0])
    assert [a.exit_code for a in record.stages["sft"].attempts] == [143, 0]


@pytest.mark.parametrize(("user_value", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_omp_wait_policy_is_passive_unless_set_by_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_value: str | None, expected: str
) -> None:
    if user_value is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", user_value)
    store = StoreConfig(url=tmp_path.as_uri())
    stage = StageSpec(name="evaluate", kind="evaluate")
    job = build_job(stage, JobContext("r", 0, store, workdir=tmp_path))
    assert LocalLauncher().render(job, stage).environment["OMP_WAIT_POLICY"] == expected


def test_starting_service_is_cancelled_if_observing_it_fails(
    scripted: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []
    observe, cancel = LocalLauncher.observe, LocalLauncher.cancel

    def broken(self: LocalLauncher, handle: Any) -> Any:
        if handle.request.job.stage == "serve":
            raise ConfigError("the API is unreachable")
        return observe(self, handle)

    def noted(self: LocalLauncher, handle: Any, grace: float) -> None:
        cancelled.append(handle.request.job.stage)
        monkeypatch.setattr(LocalLauncher, "observe", observe)
        cancel(self, handle, 1.0)

    monkeypatch.setattr(LocalLauncher, "observe", broken)
    monkeypatch.setattr(LocalLauncher, "cancel", noted)
    with pytest.raises(ConfigError, match="the API is unreachable"):
        scripted(spec(model))
    assert cancelled == ["serve"]


def test_exited_service_is_restarted_up_to_its_retries_per_run(scripted: Any, model: str) -> None:
    with pytest.raises(StageFailed, match=r"grpo: permanent error \(exit code 3\)"):
        scripted(with_retries(model, 1), serve=["exit while grpo runs", 0], grpo=["after a restart of serve 3"])
    record, _, _ = scripted(
        with_retries(model, 1), serve=[0, 0, "exit while grpo runs", 0], grpo=["after a restart of serve 0"]
    )
    assert record.state is State.DONE
    assert len(record.stages["serve"].attempts) == 4
    with pytest.raises(StageFailed, match="serve: the reward service exited"):
        scripted(with_retries(model, 0, seed=1), serve=["exit while grpo runs"], grpo=["after a restart of serve 0"])


def with_retries(model: str, retries: int, seed: int = 0) -> RunSpec:
    """Return a run whose reward service has the given number of retries."""
    plain = spec(model, seed=seed)
    stages = [
        stage.model_copy(update={"retries": retries}) if stage.name == "serve" else stage for stage in plain.spec.stages
    ]
    return plain.model_copy(update={"spec": plain.spec.model_copy(update={"stages": stages})})


KILLED = "killed before it is ready"


def test_service_killed_before_it_is_ready_is_started_again(scripted: Any, model: str) -> None:
    record, _, _ = scripted(with_retries(model, 1), serve=[KILLED, 0])
    assert record.state is State.DONE
    assert record.stages["serve"].attempts[0].exit_code == 137
    assert record.stages["serve"].attempts[0].reason == "the process was killed by SIGKILL"


def test_service_killed_while_it_restarts_is_started_again(scripted: Any, model: str) -> None:
    record, _, _ = scripted(
        with_retries(model, 2), serve=["exit while grpo runs", KILLED, 0], grpo=["after a restart of serve 0"]
    )
    assert record.state is State.DONE
    assert [attempt.exit_code for attempt in record.stages["serve"].attempts[:2]] == [9, 137]


def test_service_without_retries_left_ends_the_run_with_the_code_of_the_signal(scripted: Any, model: str) -> None:
    with pytest.raises(
        StageFailed,
        match=r"exited with code 137 before it was ready, and no retries are left \(retries: 1\): .*SIGKILL",
    ) as caught:
        scripted(with_retries(model, 1), serve=[KILLED])
    assert caught.value.exit_code == 137


def test_service_with_a_permanent_error_is_not_started_again(scripted: Any, model: str, tmp_path: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"code 5 before it was ready \(permanent error\): .*the server failed"
    ) as caught:
        scripted(with_retries(model, 5), serve=[5])
    assert caught.value.exit_code == 5
    assert (tmp_path / "run" / "stages" / "serve" / "starts").read_text() == "1"


def test_orchestrator_error_gives_the_stage_time_to_checkpoint(
    scripted: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graces: list[float] = []
    cancel = LocalLauncher.cancel

    def noted(self: LocalLauncher, handle: Any, grace: float) -> None:
        graces.append(grace)
        cancel(self, handle, 1.0)

    def broken() -> bool:
        raise OSError("disk full")

    monkeypatch.setattr(LocalLauncher, "cancel", noted)
    with pytest.raises(OSError, match="disk full"):
        scripted(spec(model), broken, curate=["sleep"])
    assert graces == [GRACE_SECONDS]


def test_inputs_are_resolved_once_per_run(scripted: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []
    resolve = orchestrator.resolve_stage

    def noted(stage: StageSpec, *rest: Any, **options: Any) -> Any:
        resolved.append(stage.name)
        return resolve(stage, *rest, **options)

    monkeypatch.setattr(orchestrator, "resolve_stage", noted)
    scripted(spec(model), sft=[129, 0])
    assert sorted(resolved) == ["curate", "grpo", "serve", "sft"], "sft was resolved again for its retry"
