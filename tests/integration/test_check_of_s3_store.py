"""``editr1 run --check`` with an artifact store on an S3 server."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.errors import ExitCode

if TYPE_CHECKING:
    from conftest import S3Server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDITR1_S3_ENDPOINT", f"http://{s3_server.endpoint}")
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", s3_server.access_key)
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", s3_server.secret_key)
    name = f"check-{uuid.uuid4().hex[:12]}"
    s3_server.client().make_bucket(name)
    return name


def check(folder: Path, store: str, rows: str = "path:rows") -> Any:
    (folder / "rows").mkdir()
    (folder / "rows" / "rows.parquet").touch()
    rows = rows.replace("path:rows", f"path:{folder / 'rows'}")
    stage = {"name": "sft", "kind": "sft", "inputs": {"rows": rows, "model": "builtin:shapes-verifier"}}
    body = {"store": store, "stages": [stage]}
    run = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": "x"}, "spec": body}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    return CliRunner().invoke(app, ["run", str(folder / "run.yaml"), "--check", "--runs-dir", str(folder / "runs")])


def test_bucket_that_can_be_read_passes_and_stays_empty(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    done = check(tmp_path, f"s3://{bucket}/prefix")
    assert done.exit_code == 0 and "was not checked" not in done.output, done.output
    assert list(s3_server.client().list_objects(bucket, recursive=True)) == []
    assert not (tmp_path / "runs").exists()


def test_artifact_that_the_bucket_does_not_contain_is_a_finding(bucket: str, tmp_path: Path) -> None:
    done = check(tmp_path, f"s3://{bucket}", "sha256:" + "a" * 64)
    assert done.exit_code == ExitCode.CONFIG and "spec.stages.sft.inputs.rows" in done.output, done.output


def test_bucket_that_does_not_exist_is_a_finding(bucket: str, tmp_path: Path) -> None:
    done = check(tmp_path, f"s3://{bucket}-other/prefix")
    assert done.exit_code == ExitCode.CONFIG, done.output
    assert "spec.store: http://" in done.output and f"bucket '{bucket}-other' does not exist" in done.output


def test_rejected_credentials_are_a_finding(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", "another-secret")
    done = check(tmp_path, f"s3://{bucket}")
    assert done.exit_code == ExitCode.CONFIG, done.output
    assert "EDITR1_S3_SECRET_KEY" in done.output and "denied" in done.output
