"""Records with a changed byte are refused, or count as absent where the work can be repeated."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from editr1.artifacts import ArtifactStore, open_store
from editr1.checksums import dump_checked
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.parallel.heartbeat import FOLDER_VARIABLE
from editr1.runs.claim import newest_claim, take
from editr1.runs.job import CONFIG_VARIABLE, PARENT_VARIABLE, StageJob, read_job
from editr1.runs.record import (
    RunRecord,
    RunRecordOfOtherVersion,
    StageRecord,
    StageResult,
    State,
    UnreadableRecord,
    add_unsubmitted_stage,
    load_complete_result,
    load_record,
    load_result,
    record_key,
    refreshed,
    result_key,
    save_record,
    save_result,
)
from editr1.runs.references import parse_reference
from editr1.runs.resolve import resolve_reference
from editr1.runs.stored import DamagedRecord, dump_stored, parse_stored

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "store").as_uri())


def commit(store: ArtifactStore, folder: Path, text: str = "rows") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "rows.parquet").write_text(text)
    return store.commit(folder, kind="rows", stage="curate").digest


def test_every_changed_byte_of_a_record_is_found() -> None:
    good = dump_stored(
        StageResult(key=KEY, outputs={"rows": "sha256:" + "1" * 64}, metrics={"rows": 0.25, "größe": 1e-9})
    )
    parsed = parse_stored(StageResult, good, "here", remedy="remove it")
    assert parsed.metrics == {"rows": 0.25, "größe": 1e-9}
    changes = 0
    for at in range(len(good)):
        for bit in (1, 4):
            changed = bytearray(good)
            changed[at] ^= bit
            try:
                content = json.loads(bytes(changed))
            except ValueError:
                content = None
            if content == json.loads(good):
                continue  # white space
            changes += 1
            with pytest.raises(DamagedRecord, match="here: the record is damaged"):
                parse_stored(StageResult, bytes(changed), "here", remedy="remove it")
    assert changes > len(good)


def test_record_without_a_checksum_is_accepted() -> None:
    assert parse_stored(StageResult, StageResult(key=KEY).model_dump_json().encode(), "here", remedy="").key == KEY


@pytest.mark.parametrize(
    "text", [b"", b'{"key": "', b"[]", b"\xff\xfe", b"[" * 100_000, dump_stored(StageResult(key=OTHER))]
)
def test_damaged_result_and_result_of_another_stage_count_as_absent(
    store: ArtifactStore, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = result_key("r", "curate", KEY)
    store.put_record(name, text)
    assert load_complete_result(store, "r", "curate", KEY) is None
    assert store.url in caplog.text and name in caplog.text and "stage curate of run r runs again" in caplog.text
    with pytest.raises(DamagedRecord, match=rf"{name}.*editr1 runs repair r"):
        load_result(store, "r", "curate", KEY)


def test_result_of_another_stage_is_named_with_both_keys(store: ArtifactStore) -> None:
    store.put_record(result_key("r", "curate", KEY), dump_stored(StageResult(key=OTHER)))
    with pytest.raises(DamagedRecord, match=f"with the key {OTHER}, not {KEY}"):
        load_result(store, "r", "curate", KEY)


def test_damaged_result_does_not_prevent_that_runs_are_listed(
    store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_record(result_key("r", "curate", KEY), b"{")
    stage = StageRecord(name="curate", kind="curate", key=KEY, state=State.RUNNING, release="r-curate")
    record = RunRecord(name="r", seed=0, state=State.RUNNING, created=1.0, stages={"curate": stage})
    assert refreshed(record, store).stages["curate"].state is State.RUNNING
    assert "the result of stage curate of run r is ignored" in caplog.text


def test_stage_runs_again_and_repairs_its_output_if_the_manifest_is_damaged(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = commit(store, tmp_path / "rows")
    save_result(store, "r", "curate", StageResult(key=KEY, outputs={"rows": digest}))
    assert load_complete_result(store, "r", "curate", KEY) is not None
    manifest = tmp_path / "store" / "manifests" / "sha256" / f"{digest.removeprefix('sha256:')}.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"rows", b"rovs", 1))
    assert load_complete_result(store, "r", "curate", KEY) is None
    assert "its output rows is missing" in caplog.text and manifest.name in caplog.text
    assert commit(store, tmp_path / "rows") == digest
    assert load_complete_result(store, "r", "curate", KEY) is not None


def test_output_of_another_stage_counts_as_missing(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.parquet").write_text("rows")
    digest = store.commit(tmp_path / "rows", kind="rows", stage="curate", config_digest=OTHER).digest
    save_result(store, "r", "curate", StageResult(key=KEY, outputs={"rows": digest}))
    assert load_complete_result(store, "r", "curate", KEY) is None
    assert OTHER in caplog.text and KEY in caplog.text


def test_record_of_another_run_and_changed_record_are_refused(store: ArtifactStore) -> None:
    save_record(store, RunRecord(name="other", seed=0, created=1.0, git_revision="1" * 40))
    data = store.get_record(record_key("other"))
    assert data is not None
    store.put_record(record_key("r"), data)
    with pytest.raises(UnreadableRecord, match=r"runs/r/record\.json.*the record of the run 'other'"):
        load_record(store, "r")
    store.put_record(record_key("other"), data.replace(b"1111", b"2222", 1))
    with pytest.raises(UnreadableRecord, match=r"runs/other/record\.json.*checksum"):
        load_record(store, "other")


def test_damaged_claim_is_named_and_can_be_taken_over(store: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    first = take(store, "r", None)
    assert first is not None
    first.beat(3)
    store.put_record("runs/r/claims/000001.json", b"\x00")
    store.put_record("runs/r/heartbeats/000001.json", b"\x00")
    store.put_record("runs/r/claims/notes.txt", b"not a claim")
    claim = newest_claim(store, "r")
    assert claim is not None and claim.number == 1 and claim.last_beat() == (0, False)
    assert "claims/000001.json" in caplog.text and "heartbeats/000001.json" in caplog.text
    second = take(store, "r", claim)
    assert second is not None and second.number == 2


def test_changed_byte_in_the_job_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = StageJob(
        run="r", stage="sft", kind="sft", key=KEY, seed=0, store=StoreConfig(url=(tmp_path / "store").as_uri()),
        workdir=tmp_path / "work", git_revision="1" * 40,
    )  # fmt: skip
    file = tmp_path / "job.json"
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    file.write_bytes(dump_stored(job))
    assert read_job() == job
    changed = dump_stored(job).replace(b"1111", b"1112", 1)
    for text, code in ((changed, 129), (b"", 2), (b"\xff\xfe", 2), (dump_stored(job)[:100], 2)):
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=r"job\.json: the job file is damaged") as error:
            read_job()
        assert error.value.exit_code == code
    # The launcher of a local stage writes the file again before the next attempt.
    monkeypatch.setenv(PARENT_VARIABLE, "1")
    for text in (changed, b"", b"\xff\xfe", None):
        file.unlink() if text is None else file.write_bytes(text)
        with pytest.raises(ConfigError, match=r"job\.json: (the job file is damaged|cannot be read)") as error:
            read_job()
        assert error.value.exit_code == 129


@pytest.mark.parametrize("variable", [PARENT_VARIABLE, FOLDER_VARIABLE])
def test_every_damage_of_a_job_file_that_a_launcher_wrote_has_one_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    store = StoreConfig(url=(tmp_path / "store").as_uri())
    good = dump_stored(StageJob(run="r", stage="sft", kind="sft", key=KEY, seed=0, store=store, workdir=tmp_path))
    file = tmp_path / "job.json"
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv(variable, "1")
    flips = [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in range(len(good))]
    for text in [*flips, *(good[:size] for size in range(0, len(good), 7)), b"[]", b"{}", b"null"]:
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=r"job\.json") as error:
            read_job()
        assert error.value.exit_code == 129, text


def test_wrong_setting_in_the_job_file_of_a_launcher_is_permanent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.json").write_bytes(dump_checked({"run": "r", "new_setting": 1}))
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "job.json"))
    monkeypatch.setenv(PARENT_VARIABLE, "1")
    with pytest.raises(ConfigError, match="new_setting") as error:
        read_job()
    assert error.value.exit_code == 2


class _NewerResult(StageResult):
    of_tomorrow: int = 1


class _NewerStage(StageRecord):
    of_tomorrow: int = 1


class _NewerRun(RunRecord):
    of_tomorrow: int = 1
    stages: dict[str, _NewerStage] = Field(default_factory=dict)  # type: ignore[assignment]


def newer_run(store: ArtifactStore, digest: str) -> None:
    """Write the records of a finished stage as a newer version would, which has more fields."""
    stage = _NewerStage(name="sft", kind="sft", key=KEY, state=State.DONE)
    store.put_record(record_key("r"), dump_stored(_NewerRun(name="r", seed=0, created=1.0, stages={"sft": stage})))
    store.put_record(result_key("r", "sft", KEY), dump_stored(_NewerResult(key=KEY, outputs={"model": digest})))


def test_outputs_in_the_records_of_a_newer_version_can_be_used(store: ArtifactStore, tmp_path: Path) -> None:
    digest = commit(store, tmp_path / "model")
    newer_run(store, digest)
    assert resolve_reference(parse_reference("run:r/sft/model"), store, {}, "inputs.model") == digest


def test_records_of_a_newer_version_are_neither_changed_nor_taken_for_complete(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newer_run(store, commit(store, tmp_path / "model"))
    before = store.get_record(record_key("r"))
    with pytest.raises(RunRecordOfOtherVersion, match="another version"):
        load_record(store, "r")
    assert load_complete_result(store, "r", "sft", KEY) is None
    add_unsubmitted_stage(store, "r", 0, StageRecord(name="serve", kind="serve", key=OTHER), "helm install serve")
    assert store.get_record(record_key("r")) == before
    assert "stage serve is not added to the record of run r" in caplog.text


def test_damaged_record_of_the_referenced_run_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    newer_run(store, commit(store, tmp_path / "model"))
    data = store.get_record(result_key("r", "sft", KEY)) or b""
    store.put_record(result_key("r", "sft", KEY), data.replace(b"of_tomorrow", b"of_tomorroy"))
    with pytest.raises(DamagedRecord, match="does not match its checksum"):
        resolve_reference(parse_reference("run:r/sft/model"), store, {}, "inputs.model")
