"""``editr1 runs repair`` names what is damaged and moves it aside, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactStore, open_store
from editr1.cli.main import app
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.claim import take
from editr1.runs.record import (
    RunRecord,
    StageRecord,
    StageResult,
    State,
    load_complete_result,
    record_key,
    result_key,
    save_record,
    save_result,
)

KEY = "a" * 64


@pytest.fixture(autouse=True)
def _read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.time.sleep", lambda _seconds: None)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A run of two finished stages and an unfinished one, with two checkpoints."""
    store = open_store((tmp_path / "runs" / "r" / "store").as_uri())
    rows, model = commit(store, tmp_path, "rows"), commit(store, tmp_path, "verifier")
    save_result(store, "r", "curate", StageResult(key=KEY, outputs={"rows": rows}))
    save_result(store, "r", "sft", StageResult(key=KEY, outputs={"model": model}))
    checkpoints = StageCheckpoints(store, "r", "gcpo", KEY)
    for step in (1, 2):
        checkpoints.add(step, commit(store, tmp_path, "checkpoint", f"step {step}"))
    stages = {
        "curate": StageRecord(name="curate", kind="curate", key=KEY, state=State.DONE, outputs={"rows": rows}),
        "sft": StageRecord(name="sft", kind="sft", key=KEY, state=State.DONE, inputs={"rows": rows}),
    }
    save_record(store, RunRecord(name="r", seed=0, created=1.0, stages=stages))
    return store


def commit(store: ArtifactStore, folder: Path, kind: str, text: str = "") -> str:
    source = folder / f"{kind}{text}"
    source.mkdir()
    (source / "data").write_text(f"{kind} {text}")
    return store.commit(source, kind=kind, stage="s", config_digest=KEY).digest


def repair(tmp_path: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["runs", "repair", *words, "--runs-dir", str(tmp_path / "runs")])


def files(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "runs" / "r" / "store"
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".tmp")}


def damage_file(tmp_path: Path, text: bytes) -> str:
    (name,) = (name for name, data in files(tmp_path).items() if name.startswith("blobs/") and data == text)
    (tmp_path / "runs" / "r" / "store" / name).write_bytes(text.upper())
    return name


def test_good_run_has_nothing_to_repair(store: ArtifactStore, tmp_path: Path) -> None:
    for words in (("r",), ("r", "--yes"), ()):
        before = files(tmp_path)
        done = repair(tmp_path, *words) if words else CliRunner().invoke(app, ["runs", "repair", "--store", store.url])
        assert done.exit_code == 0 and "nothing is damaged" in done.output, done.output
        assert files(tmp_path) == before


def test_every_kind_of_damage_is_reported_and_moved_aside(store: ArtifactStore, tmp_path: Path) -> None:
    sft, newest = result_key("r", "sft", KEY), f"runs/r/stages/gcpo/{KEY}/checkpoints/000000002.json"
    store.put_record(sft, b'{"key": ')
    rows, step = damage_file(tmp_path, b"rows "), damage_file(tmp_path, b"checkpoint step 2")
    expected = {f"records/{sft}": "result", f"records/{newest}": "checkpoint", rows: "file", step: "file"}
    before = files(tmp_path)

    shown = repair(tmp_path, "r", "--json")
    assert shown.exit_code == 5
    listed = json.loads(shown.stdout)
    assert {item["path"]: item["kind"] for item in listed} == expected
    assert all(item["problem"] and item["consequence"] and item["moved_to"] is None for item in listed)
    text = repair(tmp_path, "r")
    assert text.exit_code == 5 and "editr1 runs repair r" in text.output and "--yes" in text.output
    assert all(path in text.output.replace("\n", "") for path in expected)
    assert files(tmp_path) == before, "without --yes, nothing is changed"

    done = repair(tmp_path, "r", "--yes", "--json")
    assert done.exit_code == 0
    moved = {item["path"]: item["moved_to"] for item in json.loads(done.stdout)}
    after = files(tmp_path)
    assert after == {moved.get(name, name): data for name, data in before.items()}
    assert repair(tmp_path, "r").exit_code == 5  # the output of curate is missing until the stage runs again
    assert load_complete_result(store, "r", "curate", KEY) is None
    assert commit_again(store, tmp_path, "rows")
    assert repair(tmp_path, "r").exit_code == 0
    assert load_complete_result(store, "r", "curate", KEY) is not None
    found = StageCheckpoints(store, "r", "gcpo", KEY).fetch_newest(tmp_path / "resume").folder
    assert found is not None and (found / "data").read_text() == "checkpoint step 1"


def commit_again(store: ArtifactStore, tmp_path: Path, kind: str) -> str:
    return store.commit(tmp_path / kind, kind=kind, stage="s", config_digest=KEY).digest


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (record_key("r"), "run record"),
        (f"runs/r/stages/gcpo/{KEY}/live.json", "progress"),
        (f"runs/r/stages/gcpo/{KEY}/counts.json", "progress"),
        (f"runs/r/stages/gcpo/{KEY}/attempts/pod.json", "progress"),
        ("runs/r/claims/000001.json", "claim"),
    ],
)
def test_other_damaged_records_are_reported(store: ArtifactStore, tmp_path: Path, key: str, kind: str) -> None:
    store.put_record(key, b"\x00\xff")
    (item,) = json.loads(repair(tmp_path, "r", "--json").stdout)
    assert (item["kind"], item["path"]) == (kind, f"records/{key}")
    assert repair(tmp_path, "r", "--yes").exit_code == 0
    assert store.get_record(key) is None


def test_artifact_of_no_run_is_checked_with_the_whole_store(store: ArtifactStore, tmp_path: Path) -> None:
    commit(store, tmp_path, "import", "photos")
    name = damage_file(tmp_path, b"import photos")
    assert repair(tmp_path, "r").exit_code == 0
    whole = CliRunner().invoke(app, ["runs", "repair", "--store", store.url, "--json"])
    assert whole.exit_code == 5 and [item["path"] for item in json.loads(whole.stdout)] == [name]


def test_record_of_a_newer_version_is_not_moved(store: ArtifactStore, tmp_path: Path) -> None:
    from editr1.runs.stored import dump_stored

    class Newer(RunRecord):
        of_tomorrow: int = 1

    store.put_record(record_key("r"), dump_stored(Newer(name="r", seed=0, created=1.0)))
    done = repair(tmp_path, "r", "--yes")
    assert store.get_record(record_key("r")) is not None
    assert done.exit_code == 5 and "another version" in done.output


def test_run_that_is_executed_is_not_repaired(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = take(store, "r", None)
    assert claim is not None
    store.put_record(result_key("r", "sft", KEY), b"")
    beats = iter(range(1, 1000))
    claim.beat(next(beats))
    monkeypatch.setattr("editr1.runs.repair.time.sleep", lambda _seconds: claim.beat(next(beats)))
    done = repair(tmp_path, "r", "--yes")
    assert done.exit_code == 2 and "is executed by process" in done.output
    assert store.get_record(result_key("r", "sft", KEY)) == b""


def test_unknown_run_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    done = repair(tmp_path, "other")
    assert done.exit_code == 2 and "other" in done.output
