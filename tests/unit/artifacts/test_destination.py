"""A folder into which an artifact is fetched contains the files of this artifact and no others."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactStore, UnusableFolder, open_store
from editr1.artifacts.destination import check_destination
from editr1.cli.main import app
from editr1.errors import ExitCode


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "store").as_uri())


def committed(store: ArtifactStore, folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return store.commit(folder, kind="rows", stage="push").digest


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_of_the_previous_artifact_are_replaced(store: ArtifactStore, tmp_path: Path) -> None:
    first = committed(store, tmp_path / "1", a="1", only="old", sub__only="old")
    second = committed(store, tmp_path / "2", a="2", b="new")
    for digest, number in ((first, "1"), (first, "1"), (second, "2"), (first, "1")):
        check_destination(tmp_path / "got")
        assert content(store.fetch(digest, tmp_path / "got")) == content(tmp_path / number)


@pytest.mark.parametrize("name", ["of-an-earlier-artifact.parquet", "sub/x", ".hidden"])
def test_foreign_file_is_refused_by_name_and_nothing_changes(store: ArtifactStore, tmp_path: Path, name: str) -> None:
    first = committed(store, tmp_path / "1", a="1", only="old")
    second = committed(store, tmp_path / "2", a="2")
    got = store.fetch(first, tmp_path / "got")
    (got / name).parent.mkdir(exist_ok=True)
    (got / name).write_text("mine")
    before = content(got)
    for digest in (first, second):
        with pytest.raises(UnusableFolder, match=f"{got}: .*{name}; move or delete") as caught:
            store.fetch(digest, got)
        assert caught.value.exit_code == ExitCode.CONFIG
    with pytest.raises(UnusableFolder, match=name):
        check_destination(got)
    assert content(got) == before


def test_folder_of_an_interrupted_download_is_accepted(store: ArtifactStore, tmp_path: Path) -> None:
    first = committed(store, tmp_path / "1", a="1", b="2")
    got = store.fetch(first, tmp_path / "got")
    (got / "b").unlink()
    (tmp_path / ".got.manifest.json").unlink()
    assert content(store.fetch(first, got)) == content(tmp_path / "1")


def test_recorded_artifact_counts_if_the_folder_does_not_say_what_was_fetched(
    store: ArtifactStore, tmp_path: Path
) -> None:
    first, second = committed(store, tmp_path / "1", a="1", b="2"), committed(store, tmp_path / "2", a="2")
    got = store.fetch(first, tmp_path / "got")
    (tmp_path / ".got.manifest.json").write_text("{")
    with pytest.raises(UnusableFolder, match="a, b; move"):
        check_destination(got)
    check_destination(got, store.manifest(first))
    assert content(store.fetch(second, got)) == {"a": "2"}


def test_pull_into_a_folder_with_other_files_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    digest = committed(store, tmp_path / "1", a="1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("x")
    done = CliRunner().invoke(
        app, ["artifacts", "pull", digest, str(tmp_path / "home"), "--store", str(tmp_path / "store")]
    )
    assert done.exit_code == ExitCode.CONFIG and "notes.txt" in done.output


def test_single_stage_refuses_foreign_files_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "x" / "outputs" / "rows").mkdir(parents=True)
    (tmp_path / "x" / "outputs" / "rows" / "old.parquet").write_text("old")
    principles = "curation.principles={total: [6, 6], follow: [1, 2], keep: [3, 4], quality: [1, 1]}"
    settings = ["--set", "labeller=shapes", "--set", principles]
    done = CliRunner().invoke(app, ["curate", "--out", str(tmp_path / "x"), *settings])
    assert done.exit_code == ExitCode.CONFIG and "old.parquet" in done.output, done.output
    assert not (tmp_path / "x" / "store").exists() and not (tmp_path / "x" / "curate").exists()
