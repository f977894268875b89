"""Which checkpoint a training continues from if some of them are damaged or belong to another training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from editr1.artifacts import ArtifactStore, open_store
from editr1.artifacts.errors import StoreError
from editr1.runs.checkpoints import StageCheckpoints

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def _read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)


@pytest.fixture
def checkpoints(tmp_path: Path) -> StageCheckpoints:
    """Three checkpoints, of the steps 1, 2 and 3."""
    found = StageCheckpoints(open_store((tmp_path / "store").as_uri()), "r", "sft", KEY)
    for step in (1, 2, 3):
        found.add(step, commit(found.store, tmp_path, step))
    return found


def commit(store: ArtifactStore, folder: Path, step: int, key: str = KEY) -> str:
    source = folder / f"step-{step}"
    source.mkdir(exist_ok=True)
    (source / "weights").write_text(f"weights after step {step}")
    return store.commit(source, kind="checkpoint", stage="sft", config_digest=key).digest


def chosen(checkpoints: StageCheckpoints, folder: Path) -> str | None:
    found = checkpoints.fetch_newest(folder / "resume")
    return None if found.folder is None else (found.folder / "weights").read_text()


def digest(checkpoints: StageCheckpoints, step: int) -> str:
    data = checkpoints.store.get_record(f"{checkpoints.prefix}{step:09d}.json")
    assert data is not None
    return str(json.loads(data)["digest"])


def pointer(folder: Path, checkpoints: StageCheckpoints, step: int) -> Path:
    return folder / "store" / "records" / f"{checkpoints.prefix}{step:09d}.json"


def manifest(folder: Path, checkpoints: StageCheckpoints, step: int) -> Path:
    return folder / "store" / "manifests" / "sha256" / f"{digest(checkpoints, step).removeprefix('sha256:')}.json"


def blob(folder: Path, checkpoints: StageCheckpoints, step: int) -> Path:
    (file,) = checkpoints.store.manifest(digest(checkpoints, step)).files
    name = file.digest.removeprefix("sha256:")
    return folder / "store" / "blobs" / "sha256" / name[:2] / name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_newest_checkpoint_is_used(checkpoints: StageCheckpoints, tmp_path: Path) -> None:
    found = checkpoints.fetch_newest(tmp_path / "resume")
    assert found.folder is not None and not found.passed_over
    assert (found.folder / "weights").read_text() == "weights after step 3"
    assert StageCheckpoints(checkpoints.store, "r", "sft", OTHER).fetch_newest(tmp_path / "x").folder is None


@pytest.mark.parametrize("part", [pointer, manifest, blob])
@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    checkpoints: StageCheckpoints,
    tmp_path: Path,
    part: Callable[[Path, StageCheckpoints, int], Path],
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = pointer(tmp_path, checkpoints, 3)
    damage(part(tmp_path, checkpoints, 3))
    assert chosen(checkpoints, tmp_path) == "weights after step 2"
    if name.exists():  # a record that was removed leaves no trace
        assert f"{checkpoints.prefix}000000003.json: this checkpoint cannot be used and is skipped" in caplog.text


def test_training_starts_anew_if_all_checkpoints_are_damaged(
    checkpoints: StageCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        empty(pointer(tmp_path, checkpoints, step))
    assert checkpoints.fetch_newest(tmp_path / "resume").folder is None
    assert "none of its checkpoints can be used; training starts from the beginning" in caplog.text


def test_checkpoint_of_another_training_is_passed_over_with_both_keys(
    checkpoints: StageCheckpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.add(4, commit(checkpoints.store, tmp_path, 50, OTHER))
    assert chosen(checkpoints, tmp_path) == "weights after step 3"
    assert OTHER in caplog.text and KEY in caplog.text and "000000004.json" in caplog.text


def test_record_of_another_step_and_foreign_files_are_passed_over(
    checkpoints: StageCheckpoints, tmp_path: Path
) -> None:
    shutil.copy(pointer(tmp_path, checkpoints, 1), pointer(tmp_path, checkpoints, 4))
    pointer(tmp_path, checkpoints, 3).with_name("notes.txt").write_text("z")
    assert chosen(checkpoints, tmp_path) == "weights after step 3"


def test_damaged_local_copy_of_a_checkpoint_is_downloaded_again(checkpoints: StageCheckpoints, tmp_path: Path) -> None:
    found = checkpoints.fetch_newest(tmp_path / "resume").folder
    assert found is not None
    flip(found / "weights")
    assert chosen(checkpoints, tmp_path) == "weights after step 3"


def test_outage_of_the_store_is_not_a_damaged_checkpoint(
    checkpoints: StageCheckpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> Path:
        raise StoreError("the store does not answer")

    monkeypatch.setattr(checkpoints.store, "fetch", unreachable)
    with pytest.raises(StoreError, match="does not answer"):
        checkpoints.fetch_newest(tmp_path / "resume")
