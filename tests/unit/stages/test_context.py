"""Inputs, outputs and progress of one attempt of a stage."""

import shutil
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError
from typer.testing import CliRunner

from editr1.artifacts.errors import DigestMismatch
from editr1.cli.main import app
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.runs.job import StageJob
from editr1.runs.record import RunRecord, StageRecord, progress_key, save_record
from editr1.runs.references import parse_reference
from editr1.runs.resolve import HubUnreachable, resolve_reference
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.publisher import write_checkpoint
from editr1.telemetry.progress import json_lines


def context(folder: Path, key: str) -> StageContext:
    store = StoreConfig(url=(folder / "store").as_uri())
    job = StageJob(run="r", stage="sft", kind="sft", key=key, seed=0, store=store, workdir=folder / "work")
    return StageContext(job, lambda: False)


@pytest.mark.parametrize("key", ["a" * 64, "b" * 64])
def test_files_that_another_attempt_or_job_left_are_not_committed(tmp_path: Path, key: str) -> None:
    left = context(tmp_path, "a" * 64).output_folder("model")
    (left / "adapter").mkdir()
    (left / "adapter" / "weights.safetensors").write_text("a")
    (left / "model.safetensors.tmp").write_text("a")
    (left / "config.json").symlink_to("/nowhere")
    attempt = context(tmp_path, key)
    folder = attempt.output_folder("model")
    (folder / "model.safetensors").write_text("b")
    digest = attempt.commit("model", folder, kind="verifier")
    assert [file.path for file in attempt.store.manifest(digest).files] == ["model.safetensors"]


def test_output_folder_replaces_a_file_or_link_of_its_name(tmp_path: Path) -> None:
    folder = context(tmp_path, "a" * 64).output_folder("model")
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.txt").write_text("kept")
    folder.symlink_to(tmp_path / "elsewhere")
    assert context(tmp_path, "a" * 64).output_folder("model").is_dir() and not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "kept.txt").read_text() == "kept"
    folder.rmdir()
    folder.write_text("a file")
    assert list(context(tmp_path, "a" * 64).output_folder("model").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LocalEntryNotFoundError("the hub cannot be reached"), HubUnreachable),
        (httpx.ConnectError("refused"), HubUnreachable),
        (
            RevisionNotFoundError("no such", response=httpx.Response(404, request=httpx.Request("GET", "http://h"))),
            ConfigError,
        ),
    ],
)
def test_failed_hub_download_raises_hub_unreachable_or_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def unavailable(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", unavailable)
    stage = context(tmp_path, "a" * 64)
    stage.job.inputs["model"] = f"hub:a/b@{'1' * 40}"
    with pytest.raises(ConfigError, match=r"input model: .*hub:a/b@1") as raised:
        stage.input("model")
    assert type(raised.value) is kind


@pytest.mark.parametrize(("name", "wanted"), [("model", "config.json"), ("rows", "*.parquet")])
def test_input_of_the_wrong_kind_is_reported_with_the_missing_file(tmp_path: Path, name: str, wanted: str) -> None:
    stage = context(tmp_path, "a" * 64)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("nothing")
    stage.job.inputs[name] = stage.store.commit(tmp_path / "other", kind="import", stage="push").digest
    with pytest.raises(ConfigError) as raised:
        stage.input(name)
    assert f"stage sft, input {name} (" in str(raised.value)
    assert f"contains no {wanted}, only notes.txt" in str(raised.value)


def test_progress_of_a_new_pod_continues_from_the_last_checkpoint(tmp_path: Path) -> None:
    def steps(stage: StageContext) -> list[int]:
        data = stage.store.get_record(progress_key("r", "sft", "a" * 64))
        return [line["done"] for line in json_lines(data or b"")]

    first = context(tmp_path, "a" * 64)
    first.progress.phase("sft", 4)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("w")
    first.progress.step(2)
    first.hooks().on_checkpoint(tmp_path / "checkpoint", 2)
    first.progress.step(1)  # this step is lost with the pod because no checkpoint follows
    assert steps(first) == [0, 2]
    shutil.rmtree(tmp_path / "work")
    second = context(tmp_path, "a" * 64)
    second.progress.phase("sft", 4, 2)
    second.progress.step(2)
    second.save_progress()
    assert steps(second) == [0, 2, 2, 4]
    again = context(tmp_path, "a" * 64)  # restarted in the same folder
    again.save_progress()
    assert steps(again) == [0, 2, 2, 4]


def test_reward_model_is_a_parent_of_the_outputs(tmp_path: Path) -> None:
    store = StoreConfig(url=(tmp_path / "store").as_uri())
    reward, cases = "sha256:" + "c" * 64, "sha256:" + "d" * 64
    job = StageJob(
        run="r", stage="grpo", kind="grpo", key="a" * 64, seed=0, store=store, workdir=tmp_path / "work",
        inputs={"cases": cases}, reward_digest=reward,
    )  # fmt: skip
    stage = StageContext(job, lambda: False)
    folder = stage.output_folder("model")
    (folder / "weights").write_text("w")
    assert stage.store.manifest(stage.commit("model", folder, kind="editor")).parents == (reward, cases)


def test_checkpoint_that_is_written_again_replaces_the_damaged_one(tmp_path: Path) -> None:
    def write(stage: StageContext, step: int) -> Path:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(f"weights after step {step}")
        stage.hooks().on_checkpoint(folder, step)
        return folder

    first = context(tmp_path, "a" * 64)
    write(first, 1)
    write(first, 2)
    (blob,) = (
        path for path in (tmp_path / "store/blobs").rglob("*") if path.is_file() and b"step 2" in path.read_bytes()
    )
    blob.write_bytes(blob.read_bytes().replace(b"step 2", b"step 3"))
    second = context(tmp_path, "a" * 64)
    folder = second.hooks().find_checkpoint()
    assert folder is not None and (folder / "weights").read_text() == "weights after step 1"
    write(second, 2)
    folder = context(tmp_path, "a" * 64).hooks().find_checkpoint()
    assert folder is not None and (folder / "weights").read_text() == "weights after step 2"


@pytest.fixture
def _read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)


def flip(folder: Path, text: str) -> None:
    """Change a byte of the stored file with this content, whose size stays the same."""
    (blob,) = (file for file in (folder / "store" / "blobs").rglob("*") if file.is_file() and file.read_text() == text)
    blob.write_text(text.swapcase())


@pytest.mark.usefixtures("_read_again_at_once")
def test_damaged_input_is_repaired_as_its_message_says(tmp_path: Path) -> None:
    stage, table = context(tmp_path, "a" * 64), tmp_path / "rows"
    table.mkdir()
    (table / "rows.parquet").write_text("rows")
    digest = resolve_reference(parse_reference(f"path:{table}"), stage.store, {}, "rows")
    stage.job.inputs["rows"] = digest
    record = StageRecord(name="sft", kind="sft", key="a" * 64, inputs=stage.job.inputs)
    save_record(stage.store, RunRecord(name="r", seed=0, created=1.0, stages={"sft": record}))
    flip(tmp_path, "rows")

    with pytest.raises(
        DigestMismatch, match=r"stage sft, input rows: .*rows\.parquet.*do not match the digest"
    ) as raised:
        stage.input("rows")
    assert raised.value.exit_code == ExitCode.INPUT
    command = str(raised.value).split("aside with: editr1 ")[1].split(", and then")[0]
    assert CliRunner().invoke(app, command.split()).exit_code == 0
    assert resolve_reference(parse_reference(f"path:{table}"), stage.store, {}, "rows") == digest
    assert (Path(stage.input("rows")) / "rows.parquet").read_text() == "rows"


@pytest.mark.usefixtures("_read_again_at_once")
def test_output_replaces_a_damaged_file_that_it_shares_with_a_checkpoint(tmp_path: Path) -> None:
    first = context(tmp_path, "a" * 64)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "tokenizer.json").write_text("tokenizer")
    write_checkpoint(first.store, first.job, checkpoint, 1)
    flip(tmp_path, "tokenizer")

    again = context(tmp_path, "a" * 64)
    assert again.hooks().find_checkpoint() is None
    folder = again.output_folder("model")
    (folder / "tokenizer.json").write_text("tokenizer")
    assert again.store.verify(again.commit("model", folder, kind="verifier")) == []
