"""One test suite for all stores: file:// and s3:// (a real server) behave identically."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from editr1.artifacts import (
    AccessDenied,
    AlreadyExists,
    ArtifactNotFound,
    ArtifactStore,
    DigestMismatch,
    InvalidManifest,
    Manifest,
    StoreConfig,
    StoreError,
    open_store,
)
from editr1.runs.record import StageResult, save_result
from editr1.runs.repair import find_damage, move_aside

if TYPE_CHECKING:
    from conftest import S3Server


@pytest.fixture(params=["file", "s3"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreConfig:
    if request.param == "file":
        return StoreConfig(url=(tmp_path / "a store").as_uri())
    server: S3Server = request.getfixturevalue("s3_server")
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", server.access_key)
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", server.secret_key)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.client().make_bucket(bucket)
    return StoreConfig(url=f"s3://{bucket}/some/prefix", endpoint=server.endpoint, secure=False, part_bytes=5 << 20)


@pytest.fixture
def store(config: StoreConfig) -> ArtifactStore:
    return open_store(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "sub" / "weights ü.bin").write_bytes(os.urandom(300_000))
    (root / "sub" / "copy").write_text("{}")
    (root / "empty").write_bytes(b"")
    return root


def blob_key(data: bytes) -> str:
    name = hashlib.sha256(data).hexdigest()
    return f"blobs/sha256/{name[:2]}/{name}"


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_committed_files_are_fetched_unchanged(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft", run="r1", attributes={"size": "tiny"})
    assert [file.path for file in manifest.files] == ["config.json", "empty", "sub/copy", "sub/weights ü.bin"]
    assert store.manifest(manifest.digest) == manifest
    assert content(store.fetch(manifest.digest, tmp_path / "got")) == content(folder)
    assert sorted(path.name for path in tmp_path.glob(".got*")) == [".got.lock", ".got.manifest.json"]
    assert store.verify(manifest.digest) == []
    assert list(store.list()) == [manifest]


def test_equal_files_have_the_same_artifact_digest(store: ArtifactStore, folder: Path) -> None:
    first = store.commit(folder, kind="editor", stage="grpo")
    assert store.commit(folder, kind="editor", stage="grpo").digest == first.digest
    assert store.commit(folder, kind="editor", stage="other").digest != first.digest
    assert len([*store.objects.keys("blobs/")]) == 3  # two of the four files are equal


def test_concurrent_commits_create_one_artifact(config: StoreConfig, folder: Path) -> None:
    def commit(_: int) -> str:
        return open_store(config).commit(folder, kind="rows", stage="curate").digest

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(commit, range(8)))
    assert [manifest.digest for manifest in open_store(config).list()] == [*digests]


def test_only_one_concurrent_put_once_succeeds(config: StoreConfig) -> None:
    def put(number: int) -> bool:
        try:
            open_store(config).put_record("lock.json", str(number).encode(), if_none_match=True)
        except AlreadyExists as error:
            assert "lock.json" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [*pool.map(put, range(16))]
    assert won.count(True) == 1
    assert open_store(config).get_record("lock.json") == str(won.index(True)).encode()


def test_records_are_replaced_and_listed(store: ArtifactStore) -> None:
    assert store.get_record("runs/a/record.json") is None
    assert store.list_records("runs/") == []
    for text in (b"1", b"2"):
        store.put_record("runs/a/record.json", text)
    store.put_record("runs/a/checkpoints/000000010.json", b"{}")
    store.put_record("runs/ab/record.json", b"")
    assert store.get_record("runs/a/record.json") == b"2"
    assert store.get_record("runs/ab/record.json") == b""
    assert store.list_records("runs/a/") == ["runs/a/checkpoints/000000010.json", "runs/a/record.json"]
    assert store.list_records("runs/a/rec") == ["runs/a/record.json"]
    assert store.list_records("runs/a") == [
        "runs/a/checkpoints/000000010.json", "runs/a/record.json", "runs/ab/record.json",
    ]  # fmt: skip
    assert list(store.list()) == []


@pytest.mark.parametrize(
    "key", ["../out", "a//b", "/abs", "a/../../b", ".tmp/x", "a/.hidden", "", "a\\b", "a\nb", "a/"]
)
def test_unsafe_keys_are_refused(store: ArtifactStore, key: str) -> None:
    with pytest.raises(StoreError, match="must have at most 900"):
        store.put_record(key, b"x")


def test_artifact_does_not_exist_without_its_manifest(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    name = "sha256:" + "0" * 64
    for call in (store.manifest, store.verify, store.lineage):
        with pytest.raises(ArtifactNotFound, match=name):
            call(name)
    with pytest.raises(ArtifactNotFound):
        store.fetch(name, tmp_path / "x")
    with pytest.raises(ArtifactNotFound, match="64 hex digits"):
        store.manifest("latest")
    with pytest.raises(StoreError, match="not a folder"):
        store.commit(tmp_path / "nowhere", kind="rows", stage="x")
    (tmp_path / "bare").mkdir()
    with pytest.raises(StoreError, match="contains no files"):
        store.commit(tmp_path / "bare", kind="rows", stage="x")
    with pytest.raises(StoreError, match=r"kind: 'No Such'"):
        store.commit(folder, kind="No Such", stage="x")
    assert list(store.list()) == []


def test_damaged_blob_is_reported_and_never_fetched(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    data = bytearray((folder / "sub" / "weights ü.bin").read_bytes())
    key = blob_key(bytes(data))
    data[1000] ^= 1
    for wrong in (bytes(data), bytes(data[:-1]), bytes(data) + b"x"):
        store.objects.put_bytes(key, wrong)
        [problem] = store.verify(manifest.digest)
        assert problem.path == "sub/weights ü.bin" and "digest" in str(problem)
        with pytest.raises(DigestMismatch, match=key.rpartition("/")[2]):
            store.fetch(manifest.digest, tmp_path / "got")
        assert not (tmp_path / "got" / "sub" / "weights ü.bin").exists()


def test_damaged_manifest_is_refused(store: ArtifactStore, folder: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    key = f"manifests/sha256/{manifest.digest.removeprefix('sha256:')}.json"
    store.objects.put_bytes(key, manifest.canonical().replace(b"verifier", b"verifieR"))
    with pytest.raises(DigestMismatch):
        store.manifest(manifest.digest)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "", "a//b", "./a"])
def test_manifest_with_a_path_outside_its_folder_is_refused(store: ArtifactStore, tmp_path: Path, path: str) -> None:
    blob = b"evil"
    store.objects.put_bytes(blob_key(blob), blob)
    entry = {"path": path, "size": 4, "digest": "sha256:" + hashlib.sha256(blob).hexdigest()}
    data = json.dumps({"kind": "rows", "stage": "x", "files": [entry]}).encode()
    name = hashlib.sha256(data).hexdigest()
    store.objects.put_bytes(f"manifests/sha256/{name}.json", data)
    with pytest.raises(InvalidManifest, match=r"files\.0\.path"):
        store.fetch(f"sha256:{name}", tmp_path / "deep" / "got")
    assert not [*tmp_path.rglob("evil")]


def test_fetch_does_not_write_through_a_symbolic_link(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="points outside"):
        store.fetch(manifest.digest, tmp_path / "got")
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_complete_folder_is_not_fetched_again(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    got = store.fetch(manifest.digest, tmp_path / "got")
    before = {path: path.stat().st_ino for path in got.rglob("*")}
    (got / "config.json").write_text("tampered")
    store.fetch(manifest.digest, got)
    after = {path: path.stat().st_ino for path in got.rglob("*")}
    assert content(got) == content(folder)
    assert {path.name for path in after if after[path] != before[path]} == {"config.json"}


def test_interrupted_download_resumes_where_it_stopped(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    whole = (folder / "sub" / "weights ü.bin").read_bytes()
    name = hashlib.sha256(whole).hexdigest()
    partials = tmp_path / ".got.partial"
    partials.mkdir()
    (partials / name).write_bytes(whole[:200_000])
    asked: dict[str, int] = {}
    stream = store.objects.stream

    def counted(key: str, offset: int = 0):  # type: ignore[no-untyped-def]
        asked[key] = offset
        return stream(key, offset)

    store.objects.stream = counted  # type: ignore[method-assign]
    assert content(store.fetch(manifest.digest, tmp_path / "got")) == content(folder)
    assert asked[blob_key(whole)] == 200_000


def test_damaged_partial_download_is_discarded(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    whole = (folder / "sub" / "weights ü.bin").read_bytes()
    partials = tmp_path / ".got.partial"
    partials.mkdir()
    for wrong in (b"\0" * 1000, whole + b"and more"):
        (partials / hashlib.sha256(whole).hexdigest()).write_bytes(wrong)
        assert content(store.fetch(manifest.digest, tmp_path / "got")) == content(folder)
        (tmp_path / "got" / "sub" / "weights ü.bin").unlink()
        partials.mkdir(exist_ok=True)


def test_broken_connection_is_resumed(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    manifest = store.commit(folder, kind="verifier", stage="sft")
    stream = store.objects.stream
    breaks = iter(range(3))

    def unreliable(key: str, offset: int = 0):  # type: ignore[no-untyped-def]
        for chunk in stream(key, offset):
            if key.startswith("blobs/") and next(breaks, None) is not None:
                yield chunk[: len(chunk) // 2]
                raise StoreError("connection reset")
            yield chunk

    store.objects.stream = unreliable  # type: ignore[method-assign]
    assert content(store.fetch(manifest.digest, tmp_path / "got")) == content(folder)


def test_two_processes_can_fetch_into_one_folder(config: StoreConfig, folder: Path, tmp_path: Path) -> None:
    manifest = open_store(config).commit(folder, kind="verifier", stage="sft")
    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: open_store(config).fetch(manifest.digest, tmp_path / "got"), range(6)):
            assert content(got) == content(folder)


def test_lineage_reaches_the_first_inputs(store: ArtifactStore, folder: Path) -> None:
    def made(stage: str, *parents: Manifest) -> Manifest:
        return store.commit(folder, kind="rows", stage=stage, parents=[parent.digest for parent in parents])

    pictures = made("import")
    rows, pairs = made("curate", pictures), made("pairs", pictures)
    model = made("gcpo", rows, pairs)
    foreign = store.commit(folder, kind="rows", stage="x", parents=[model.digest, "sha256:" + "1" * 64])
    assert {item.digest for item in store.lineage(model.digest)} == {rows.digest, pairs.digest, pictures.digest}
    assert store.lineage(model.digest)[-1] == pictures
    assert store.lineage(foreign.digest)[0] == model
    assert store.lineage(pictures.digest) == []


def test_large_file_is_uploaded_in_parts(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    data = os.urandom(1 << 20) * 12 + b"tail"
    (tmp_path / "big" / "weights.bin").write_bytes(data)
    manifest = store.commit(tmp_path / "big", kind="verifier", stage="sft")
    assert store.objects.size(blob_key(data)) == len(data)
    assert (store.fetch(manifest.digest, tmp_path / "got") / "weights.bin").read_bytes() == data


@pytest.mark.parametrize("size", [100, 12 << 20])
def test_file_that_changes_during_the_upload_is_not_stored(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "changing"
    path.write_bytes(b"b" * size)
    announced = hashlib.sha256(b"a" * size).hexdigest()
    for wrong_size in (size, size - 1, size + 1):
        with pytest.raises(DigestMismatch, match="changed while"):
            store.objects.put_file(f"blobs/sha256/00/{announced}", path, wrong_size, announced)
    assert [*store.objects.keys("")] == []


def test_s3_errors_give_cause_and_solution(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client().make_bucket(bucket)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MINIO_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("EDITR1_S3_ENDPOINT", f"http://{s3_server.endpoint}")
    with pytest.raises(AccessDenied, match="set EDITR1_S3_ACCESS_KEY and EDITR1_S3_SECRET_KEY"):
        open_store(f"s3://{bucket}")
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", s3_server.access_key)
    with pytest.raises(AccessDenied, match="EDITR1_S3_SECRET_KEY is not set"):
        open_store(f"s3://{bucket}")
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", "wrong")
    for once in (False, True):
        with pytest.raises(AccessDenied, match="check the credentials in EDITR1_S3_ACCESS_KEY") as refused:
            open_store(f"s3://{bucket}").put_record("a", b"x", if_none_match=once)
        assert "wrong" not in str(refused.value)
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", s3_server.secret_key)
    open_store(f"s3://{bucket}").commit(folder, kind="rows", stage="x")
    for once in (False, True):
        with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist"):
            open_store("s3://no-such-bucket/p").put_record("a", b"x", if_none_match=once)
    monkeypatch.setenv("EDITR1_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="not reachable"):
        open_store(f"s3://{bucket}").get_record("a")


def test_https_requires_the_ca_bundle(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    if s3_server.https_endpoint is None:
        pytest.skip("needs the openssl program")
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client().make_bucket(bucket)
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", s3_server.access_key)
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", s3_server.secret_key)
    config = StoreConfig(url=f"s3://{bucket}/p", endpoint=s3_server.https_endpoint, ca_bundle=s3_server.certificate)
    manifest = open_store(config).commit(folder, kind="rows", stage="x")
    assert content(open_store(config).fetch(manifest.digest, tmp_path / "got")) == content(folder)
    with pytest.raises(StoreError, match=r"not reachable.*certificate"):
        open_store(config.model_copy(update={"ca_bundle": None})).get_record("a")


def test_repair_moves_damaged_objects_aside(
    store: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editr1.artifacts.reliable.REREAD_DELAYS", ())
    digest = store.commit(folder, kind="verifier", stage="sft").digest
    key, stage = "a" * 64, "runs/r/stages"
    save_result(store, "r", "sft", StageResult(key=key, outputs={"model": digest}))
    store.put_record(f"{stage}/gcpo/{key}/result.json", b"")
    blob = blob_key((folder / "sub" / "weights ü.bin").read_bytes())
    store.objects.put_bytes(blob, b"damaged")
    found = find_damage(store, "r")
    assert {(item.kind, item.path) for item in found} == {
        ("file", blob),
        ("result", f"records/{stage}/gcpo/{key}/result.json"),
    }
    moved = [move_aside(store, item) for item in found]
    assert sorted(store.objects.get_bytes(name) for name in moved) == [b"", b"damaged"]
    assert [item.path for item in find_damage(store, "r")] == [blob]
    assert not find_damage(store, "r")[0].can_move
    store.commit(folder, kind="verifier", stage="sft")
    assert find_damage(store, "r") == [] == find_damage(store)
