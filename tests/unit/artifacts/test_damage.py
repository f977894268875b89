"""Repair of damaged files, and files in the store that are not artifacts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactNotFound, DigestMismatch, open_store
from editr1.cli.main import app


def test_push_repairs_damaged_file_and_list_ignores_foreign_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)
    folder, store = tmp_path / "model", tmp_path / "store"
    folder.mkdir()
    (folder / "weights").write_text("good")
    opened = open_store(store.as_uri())
    digest = opened.commit(folder, kind="verifier", stage="push").digest
    (blob,) = (path for path in (store / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_text("evil")
    (store / "manifests" / "sha256" / ".DS_Store").write_text("x")
    assert [problem.path for problem in opened.verify(digest)] == ["weights"]
    opened.commit(folder, kind="verifier", stage="push")
    assert opened.verify(digest), "a commit does not verify files that are already in the store"

    pushed = CliRunner().invoke(app, ["artifacts", "push", str(folder), "--kind", "verifier", "--store", str(store)])
    assert pushed.output.strip() == digest
    assert opened.verify(digest) == []
    assert [manifest.digest for manifest in opened.list()] == [digest]


def test_damaged_file_is_reported_with_its_artifact_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("good")
    store = open_store((tmp_path / "store").as_uri())
    digest = store.commit(tmp_path / "model", kind="verifier", stage="push").digest
    (blob,) = (path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file())
    blob.write_text("evil")
    with pytest.raises(DigestMismatch, match=rf"artifact {digest}, file weights: .*{blob.name}.*editr1 runs repair"):
        store.fetch(digest, tmp_path / "got")
    blob.unlink()
    with pytest.raises(ArtifactNotFound, match=rf"artifact {digest}, file weights: .*{blob.name} does not exist"):
        store.fetch(digest, tmp_path / "got")
