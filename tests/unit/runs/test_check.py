"""What is known about a run before a model is loaded: environment settings, batches, and inputs."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from editr1.artifacts import StoreUnreachable, open_store
from editr1.artifacts.bucket import probe_bucket
from editr1.cli.main import app
from editr1.config.loader import ConfigError
from editr1.config.store import store_at
from editr1.errors import ExitCode
from editr1.runs.resolve import full_config
from editr1.runs.spec import load_run

DIGEST = "sha256:" + "a" * 64


def run_file(folder: Path, **stage: Any) -> Path:
    sft = {"name": "sft", "kind": "sft", "inputs": {"rows": DIGEST, "model": "builtin:shapes-verifier"}} | stage
    body = {"seed": 3, "stages": [sft]}
    run = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": "x"}, "spec": body}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return folder / "run.yaml"


def check(file: Path, *arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(
        app, ["run", str(file), "--check", "--runs-dir", str(file.parent / "runs"), *arguments], env=env
    )


def test_variables_of_a_kind_set_the_config_of_its_stages(tmp_path: Path) -> None:
    file = run_file(tmp_path, config={"learning_rate": 1e-3, "batch_size": 8})
    env = {"EDITR1_SFT__LEARNING_RATE": "2e-3", "EDITR1_SFT__BATCH_SIZE": "4", "EDITR1_GCPO__BETA": "9"}
    stage = load_run(file, ["sft.batch_size=2"], env).spec.stages[0]
    assert stage.config == {"learning_rate": 2e-3, "batch_size": 2}


@pytest.mark.parametrize("value", ["-1", "yes", "x", ".inf", ".nan"])
def test_invalid_variable_is_refused_with_its_name(tmp_path: Path, value: str) -> None:
    done = check(run_file(tmp_path), env={"EDITR1_SFT__LEARNING_RATE": value})
    assert done.exit_code == ExitCode.CONFIG
    assert "environment variable EDITR1_SFT__LEARNING_RATE" in done.output


@pytest.mark.parametrize(
    "setting",
    ["sft.learning_rate=yes", "spec.seed=true", "spec.stages.sft.retries=yes", "spec.seed=1:30", "spec.seed=010"],
)
def test_word_or_notation_that_is_no_number_is_refused(tmp_path: Path, setting: str) -> None:
    assert check(run_file(tmp_path), "--set", setting).exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("kind", "config", "fault"),
    [
        ("sft", {"batch_size": 32}, "batch_size 32 is not a multiple of 33"),
        ("gcpo", {"pairs_per_rollout": 4}, "pairs_per_rollout 4 cannot be divided evenly among 3 processes"),
        ("grpo", {"cases_per_iteration": 4}, "cases_per_iteration 4 is not a multiple of the number of processes"),
    ],
)
def test_batch_that_does_not_divide_among_the_processes_is_refused(
    tmp_path: Path, kind: str, config: dict[str, Any], fault: str
) -> None:
    inputs = {
        "sft": {"rows": DIGEST, "model": DIGEST},
        "gcpo": {"pairs": DIGEST, "model": DIGEST},
        "grpo": {"cases": DIGEST, "editor": DIGEST},
    }[kind]
    extra = {"reward": "http://127.0.0.1:1"} if kind == "grpo" else {}
    file = run_file(tmp_path, name=kind, kind=kind, inputs=inputs, config=config, processes=3, **extra)
    with pytest.raises(ConfigError, match=rf"spec\.stages\.{kind}\.config: {fault}"):
        load_run(file)
    load_run(file, [f"spec.stages.{kind}.processes=2"])


def test_inputs_that_do_not_exist_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "runs" / "x" / "store").mkdir(parents=True)
    done = check(run_file(tmp_path, inputs={"rows": DIGEST, "model": f"path:{tmp_path}/none"}))
    assert done.exit_code == ExitCode.CONFIG
    assert "inputs.rows" in done.output and "does not exist" in done.output
    assert "inputs.model" in done.output and "is not a folder" in done.output


def test_output_of_an_unknown_run_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs" / "x" / "store").mkdir(parents=True)
    done = check(run_file(tmp_path, inputs={"rows": "run:old/curate/rows", "model": "builtin:shapes-verifier"}))
    assert done.exit_code == ExitCode.CONFIG and "has no result" in done.output


def test_damaged_model_folder_is_reported_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.parquet").touch()
    done = check(run_file(tmp_path, inputs={"rows": f"path:{tmp_path}/rows", "model": f"path:{tmp_path}/model"}))
    assert done.exit_code == ExitCode.INPUT and "model.safetensors" in done.output


def test_shown_run_file_is_the_same_run(tmp_path: Path) -> None:
    file = run_file(tmp_path)
    done = CliRunner().invoke(app, ["config", "show", str(file)])
    (tmp_path / "shown.yaml").write_text(done.output)
    both = [load_run(path).spec for path in (file, tmp_path / "shown.yaml")]
    first, second = (full_config(spec.stages[0].kind, spec.stages[0].config, spec.seed) for spec in both)
    assert first == second and first["seed"] == 3


def s3_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("EDITR1_S3_ENDPOINT", endpoint)
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", "secret")


def test_s3_store_without_credentials_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_environment(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.delenv("EDITR1_S3_SECRET_KEY")
    done = check(run_file(tmp_path), "--store", "s3://bucket/x")
    assert done.exit_code == ExitCode.CONFIG, done.output
    assert "run.yaml: spec.store: s3://bucket/x: EDITR1_S3_SECRET_KEY is not set" in done.output


def test_s3_store_that_does_not_respond_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_environment(monkeypatch, "http://127.0.0.1:9")
    done = check(run_file(tmp_path), "--store", "s3://bucket/x")
    assert done.exit_code == 0, done.output
    assert "run.yaml: spec.store: s3://bucket/x was not checked: " in done.output
    assert "not reachable" in done.output and "the run file is valid" in done.output


def test_s3_server_that_accepts_and_never_answers_ends_the_check_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        s3_environment(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match=r"did not respond within 0\.3 s"):
            probe_bucket(store_at("s3://bucket/x"), 0.3)
        assert time.monotonic() - began < 5


def test_input_of_another_kind_is_refused(tmp_path: Path) -> None:
    done = check(run_file(tmp_path, inputs={"rows": "builtin:shapes-editor", "model": "builtin:shapes-editor"}))
    assert done.exit_code == ExitCode.CONFIG
    assert "inputs.rows: builtin:shapes-editor contains an editor, but this input is: SFT rows" in done.output
    assert "inputs.model: builtin:shapes-editor contains an editor, but this input is: base verifier" in done.output


def test_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    curate = {"name": "curate", "kind": "curate"}
    sft = {"name": "sft", "kind": "sft", "inputs": {"rows": "stage:curate/pairs", "model": "builtin:shapes-verifier"}}
    file = run_file(tmp_path)
    run = yaml.safe_load(file.read_text())
    run["spec"]["stages"] = [curate, sft]
    file.write_text(yaml.safe_dump(run))
    done = check(file)
    assert done.exit_code == ExitCode.CONFIG
    assert "stage:curate/pairs contains preference pairs, but this input is: SFT rows" in done.output


def commit(store: Path, file: str, kind: str) -> str:
    folder = store.parent / kind
    folder.mkdir()
    (folder / file).write_text("{}")
    return open_store(store_at(store.as_uri())).commit(folder, kind=kind, stage="push").digest


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        ("rows.parquet", "pairs", "contains preference pairs, but this input is: SFT rows"),
        ("rows.csv", "rows", "contains no *.parquet; use another artifact"),
        ("rows.parquet", "my-rows", ""),
    ],
)
def test_artifact_in_the_store_must_be_what_the_input_expects(
    tmp_path: Path, file: str, kind: str, message: str
) -> None:
    rows = commit(tmp_path / "store", file, kind)
    spec = run_file(tmp_path, inputs={"rows": rows, "model": "builtin:shapes-verifier"})
    done = check(spec, "--store", (tmp_path / "store").as_uri())
    assert done.exit_code == (ExitCode.CONFIG if message else 0), done.output
    assert message in done.output


@pytest.mark.parametrize("rows", [DIGEST, "run:nope/curate/rows"])
def test_input_that_does_not_exist_is_refused_before_the_first_stage(tmp_path: Path, rows: str) -> None:
    file = run_file(tmp_path, inputs={"rows": rows, "model": "builtin:shapes-verifier"})
    run = yaml.safe_load(file.read_text())
    run["spec"]["stages"].insert(0, {"name": "curate", "kind": "curate"})
    file.write_text(yaml.safe_dump(run))
    assert check(file).exit_code == ExitCode.CONFIG
    done = CliRunner().invoke(app, ["run", str(file), "--runs-dir", str(tmp_path / "runs")])
    assert done.exit_code == ExitCode.CONFIG and "spec.stages.sft.inputs.rows" in done.output, done.output
    assert not (tmp_path / "runs/x/stages").exists()
