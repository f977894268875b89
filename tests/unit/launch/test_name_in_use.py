"""Runs whose settings or inputs differ from what is recorded under their name."""

from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.loader import ConfigError
from editr1.config.serve import ServeConfig
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.launch.single_stage import run_name_of
from editr1.runs.name_in_use import NameInUse, run_differences, stated_settings
from editr1.runs.record import RunRecord, StageRecord, UnreadableRecord, load_record, record_key, save_record
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec
from editr1.serving.identity import reward_identity

STRICT = {"replace": False}


def spec(model: str, *, seed: int = 0, name: str = "r", stages: int = 3, **config: dict[str, Any]) -> RunSpec:
    every = [
        StageSpec(name="curate", kind="curate", config=config.get("curate", {})),
        StageSpec(name="serve", kind="serve", inputs={"model": model}, config=config.get("serve", {})),
        StageSpec(
            name="sft", kind="sft", inputs={"rows": "stage:curate/rows", "model": model}, config=config.get("sft", {})
        ),
    ]
    return RunSpec(
        api_version=API_VERSION,
        kind="EditRun",
        metadata=Metadata(name=name),
        spec=RunBody(seed=seed, stages=every[:stages]),
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(StoreConfig(url=(tmp_path / "run/store").as_uri()))


def record_bytes(store: ArtifactStore) -> bytes | None:
    return store.get_record(record_key("r"))


def test_other_settings_are_refused_and_named(scripted: Any, model: str, store: ArtifactStore) -> None:
    scripted(spec(model), options=STRICT)
    before = record_bytes(store)
    other = spec(model, seed=1, sft={"learning_rate": 0.5})
    with pytest.raises(NameInUse) as caught:
        scripted(other, options=STRICT)
    assert caught.value.exit_code == ExitCode.CONFIG
    for part in ("seed: 0 -> 1", "sft.config.learning_rate: 0.001 -> 0.5", "--name", "--replace", "are reused"):
        assert part in str(caught.value)
    assert record_bytes(store) == before


def test_other_input_is_refused_and_named(scripted: Any, model: str, store: ArtifactStore, tmp_path: Path) -> None:
    scripted(spec(model), options=STRICT)
    before = record_bytes(store)
    (tmp_path / "base/weights").write_text("other")
    with pytest.raises(NameInUse, match=r"sft\.inputs\.model: sha256:[0-9a-f]{64} -> sha256:[0-9a-f]{64}"):
        scripted(spec(model), options=STRICT)
    assert record_bytes(store) == before


def test_same_input_at_another_path_is_accepted(scripted: Any, model: str, tmp_path: Path) -> None:
    scripted(spec(model), options=STRICT)
    copy = tmp_path / "copy"
    (tmp_path / "base").rename(copy)
    _, any_started, _ = scripted(spec(f"path:{copy}"), options=STRICT)
    assert not any_started


def test_removed_stage_is_refused_and_added_stage_is_accepted(scripted: Any, model: str) -> None:
    scripted(spec(model, stages=1), options=STRICT)
    scripted(spec(model), options=STRICT)
    with pytest.raises(NameInUse, match="sft: recorded -> not in the run file"):
        scripted(spec(model, stages=1), options=STRICT)


def test_port_of_a_service_is_not_a_difference(model: str, store: ArtifactStore) -> None:
    record = RunRecord(name="r", seed=0, created=0.0, stated=stated_settings(spec(model).spec))
    assert run_differences(record, spec(model, serve={"port": 9}), store) == []
    lines = run_differences(record, spec(model, serve={"max_new_tokens": 9}), store)
    assert lines == ["serve.config.max_new_tokens: 1024 -> 9"]


def test_record_of_an_earlier_version_is_compared_by_its_stages(
    scripted: Any, model: str, store: ArtifactStore
) -> None:
    record, _, _ = scripted(spec(model), options=STRICT)
    record.stated = {}
    save_record(store, record)
    assert run_differences(record, spec(model), store) == []
    with pytest.raises(NameInUse, match=r"sft\.config\.learning_rate"):
        scripted(spec(model, sft={"learning_rate": 0.5}), options=STRICT)


def test_replaced_record_keeps_artifacts_and_reuses_finished_stages(
    scripted: Any, model: str, store: ArtifactStore
) -> None:
    scripted(spec(model), options=STRICT)
    artifacts = {manifest.digest for manifest in store.list()}
    record, _, watcher = scripted(spec(model, sft={"learning_rate": 0.5}), options={"replace": True})
    assert ("stage_skipped", "curate") in watcher.events and ("stage_started", "sft") in watcher.events
    assert artifacts <= {manifest.digest for manifest in store.list()}
    assert record.stages["sft"].config["learning_rate"] == 0.5
    _, any_started, _ = scripted(spec(model, sft={"learning_rate": 0.5}), options=STRICT)
    assert not any_started


def test_run_with_another_name_reuses_finished_stages(
    scripted: Any, model: str, store: ArtifactStore, tmp_path: Path
) -> None:
    scripted(spec(model), options=STRICT)
    options = {"replace": False, "reuse": ("r",), "store": StoreConfig(url=store.url), "folder": tmp_path / "other"}
    _, any_started, watcher = scripted(spec(model, name="other"), options=options)
    assert not any_started and ("stage_skipped", "sft") in watcher.events
    _, _, watcher = scripted(spec(model, name="third", sft={"learning_rate": 0.5}), options=options)
    assert ("stage_skipped", "curate") in watcher.events and ("stage_started", "sft") in watcher.events
    assert {load_record(store, name).seed for name in ("r", "other", "third")} == {0}  # type: ignore[union-attr]


def test_another_model_behind_the_same_address_is_named(model: str, store: ArtifactStore) -> None:
    digests = ["sha256:" + letter * 64 for letter in "ab"]
    known = reward_identity(digests[0], ServeConfig())
    url = "http://127.0.0.1:1"
    stage = StageSpec(name="grpo", kind="grpo", inputs={"cases": model, "editor": model}, reward=url)
    run = spec(model).model_copy(update={"spec": RunBody(stages=[stage])})
    recorded = StageRecord(name="grpo", kind="grpo", key="a" * 64, reward=known.model_dump())
    record = RunRecord(name="r", seed=0, created=0.0, stated=stated_settings(run.spec), stages={"grpo": recorded})
    now = reward_identity(digests[1], ServeConfig(max_new_tokens=9))
    assert run_differences(record, run, store, ask=lambda *_, **__: known) == []
    assert run_differences(record, run, store, ask=lambda *_, **__: now) == [
        f"grpo.reward.model: {digests[0]} -> {digests[1]}",
        "grpo.reward.max_new_tokens: 1024 -> 9",
    ]


def test_damaged_record_is_replaced_only_on_request(scripted: Any, model: str, store: ArtifactStore) -> None:
    scripted(spec(model), options=STRICT)
    store.put_record(record_key("r"), (record_bytes(store) or b"")[:200])
    with pytest.raises(UnreadableRecord, match=r"runs/r/record\.json.*\n.*--replace") as caught:
        scripted(spec(model), options=STRICT)
    assert caught.value.exit_code == ExitCode.INPUT
    _, any_started, _ = scripted(spec(model), options={"replace": True})
    assert not any_started
    assert load_record(store, "r") is not None


@pytest.mark.parametrize("lost", ["manifests", "blobs"])
def test_stage_runs_again_if_its_outputs_are_gone(
    scripted: Any, model: str, store: ArtifactStore, tmp_path: Path, lost: str
) -> None:
    record, _, _ = scripted(spec(model), options=STRICT)
    for file in (tmp_path / "run/store" / lost).rglob("*"):
        if file.is_file():
            file.unlink()
    again, any_started, watcher = scripted(spec(model), options=STRICT)
    assert any_started and ("stage_started", "curate") in watcher.events and ("stage_started", "sft") in watcher.events
    assert again.stages["sft"].outputs == record.stages["sft"].outputs
    assert not any(store.missing(digest) for digest in again.stages["sft"].outputs.values())


@pytest.mark.parametrize(("folder", "name"), [("runs/sft-2", "sft-2"), ("a/b", "b")])
def test_single_stage_is_named_after_its_folder(folder: str, name: str) -> None:
    assert run_name_of(Path(folder)) == name


def test_folders_whose_names_are_no_run_names_get_distinct_names() -> None:
    folders = [
        "My_Run",
        "my-run",
        "My-Run",
        "模型",
        "編集",
        "x" * 60,
        "x" * 61,
        "2026-12-01",
        "run-2026-12-01",
        "7.5",
        "9" * 45,
    ]
    names = [run_name_of(Path("runs") / folder) for folder in folders]
    assert len(set(names)) == len(names)
    for name in names:
        Metadata(name=name)


def test_invalid_name_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        from editr1.cli.run import _with_name

        _with_name(spec(model), "No Name")
