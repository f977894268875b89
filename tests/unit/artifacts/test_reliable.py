"""Operations of a store are repeated after failures that may pass, and wait during an outage."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from editr1.artifacts import (
    AccessDenied,
    AlreadyExists,
    ArtifactNotFound,
    ArtifactStore,
    DigestMismatch,
    OutageWait,
    StoreError,
    StoreUnreachable,
    reliable,
)
from editr1.artifacts.files import FileObjects
from editr1.artifacts.reliable import ReliableObjects

DOWN = StoreUnreachable("down")


class Faulty(FileObjects):
    """A local store whose next operations fail: ``faults`` maps the name of an operation to its next errors or results."""

    def __init__(self, root: Path, **faults: list[Any]) -> None:
        super().__init__(root)
        self.faults = faults
        self.calls: list[str] = []

    def _fault(self, name: str) -> Any:
        self.calls.append(name)
        fault = self.faults[name].pop(0) if self.faults.get(name) else None
        if isinstance(fault, Exception):
            raise fault
        return fault

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        if (fault := self._fault("put")) == "lost answer":
            super().put_bytes(key, data, once=once)
            raise StoreUnreachable("the connection was reset")
        if fault != "ignored":
            super().put_bytes(key, data, once=once)

    def get_bytes(self, key: str) -> bytes:
        fault = self._fault("get")
        return super().get_bytes(key) if fault is None else bytes(fault)

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        fault = self._fault("stream")
        yield from super().stream(key, offset) if fault is None else [fault]

    def keys(self, prefix: str) -> Iterator[str]:
        fault = self._fault("keys")
        yield from super().keys(prefix) if fault is None else fault

    def size(self, key: str) -> int | None:
        return None if self._fault("size") else super().size(key)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Replace the clock, so that a wait takes no time; return the time that was slept."""
    now, naps = [1000.0], list[float]()

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds

    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now[0])
        patched.setattr(time, "sleep", sleep)
        yield naps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    (root / "weights").write_bytes(bytes(range(256)))
    return root


def store_with(objects: Faulty, **wait: Any) -> ArtifactStore:
    return ArtifactStore(ReliableObjects(objects, OutageWait(**wait) if wait else None))


def test_wrong_byte_in_one_answer_is_read_again(tmp_path: Path, folder: Path) -> None:
    objects = Faulty(tmp_path / "s")
    store = store_with(objects)
    manifest = store.commit(folder, kind="rows", stage="x")
    objects.faults = {"get": [manifest.canonical().replace(b"rows", b"rowt")], "stream": [bytes(256), b"short"]}
    assert (store.fetch(manifest.digest, tmp_path / "got") / "weights").read_bytes() == bytes(range(256))
    objects.faults = {"stream": [bytes(256)], "size": [True]}
    assert store.verify(manifest.digest) == [] and store.missing(manifest.digest) == ""
    objects.faults = {"keys": [[f"manifests/sha256/{'0' * 64}.json"]]}
    assert list(store.list()) == []


def test_manifest_that_one_answer_says_is_missing_is_read_again(tmp_path: Path, folder: Path) -> None:
    objects = Faulty(tmp_path / "s")
    store = store_with(objects)
    manifest = store.commit(folder, kind="rows", stage="x")
    objects.faults = {"get": [ArtifactNotFound("404")]}
    assert store.manifest(manifest.digest) == manifest
    with pytest.raises(ArtifactNotFound, match="is not a digest"):
        store.manifest("sha256:x")


def test_bytes_that_stay_wrong_are_reported_as_damage(tmp_path: Path, folder: Path) -> None:
    objects = Faulty(tmp_path / "s")
    store = store_with(objects)
    manifest = store.commit(folder, kind="rows", stage="x")
    objects.faults = {"stream": [bytes(256)] * 9}
    with pytest.raises(DigestMismatch):
        store.fetch(manifest.digest, tmp_path / "got")
    assert objects.calls.count("stream") == 1 + len(reliable.REREAD_DELAYS)


def test_file_that_stayed_damaged_is_read_only_once_for_other_artifacts(tmp_path: Path, folder: Path) -> None:
    objects = Faulty(tmp_path / "s")
    store = store_with(objects)
    first, second = (store.commit(folder, kind="checkpoint", stage="x", run=run).digest for run in ("a", "b"))
    (blob,) = (path for path in (tmp_path / "s" / "blobs").rglob("*") if path.is_file())
    for content in (bytes(256), b"short"):
        blob.write_bytes(content)
        assert store.verify(first) or store.missing(first)
    for use in (store.verify, store.missing, lambda digest: store.fetch(digest, tmp_path / "got")):
        objects.calls.clear()
        with suppress(DigestMismatch, ArtifactNotFound):
            assert use(second)
        assert objects.calls.count("stream") <= 1 and objects.calls.count("size") <= 2
    store.commit(folder, kind="checkpoint", stage="x", run="b", repair=True)
    assert store.verify(second) == [] and store.missing(second) == ""
    objects.faults = {"stream": [bytes(256)]}
    assert store.verify(first) == []


def test_missing_manifest_is_read_as_often_as_a_damaged_one(tmp_path: Path) -> None:
    objects = Faulty(tmp_path / "s")
    store = store_with(objects)
    assert "does not exist" in store.missing("sha256:" + "0" * 64)
    assert objects.calls.count("get") == 1 + len(reliable.REREAD_DELAYS)


def test_conditional_write_whose_answer_was_lost_succeeds(tmp_path: Path) -> None:
    objects = Faulty(tmp_path / "s", put=["lost answer"])
    store = store_with(objects)
    store.put_record("claim", b"mine", if_none_match=True)
    with pytest.raises(AlreadyExists):
        store.put_record("claim", b"other", if_none_match=True)
    assert store.get_record("claim") == b"mine"


def test_conditional_write_that_is_refused_although_nobody_wrote_is_repeated(tmp_path: Path) -> None:
    objects = Faulty(tmp_path / "s", put=[AlreadyExists("412"), AlreadyExists("412")])
    store = store_with(objects)
    store.put_record("claim", b"mine", if_none_match=True)
    assert store.get_record("claim") == b"mine"
    objects.faults = {"put": [AlreadyExists("412")] * 99}
    with pytest.raises(StoreUnreachable, match="reports that this object exists"):
        store.put_record("other", b"mine", if_none_match=True)


def test_operation_without_a_wait_is_repeated_for_a_few_seconds(tmp_path: Path, slept: list[float]) -> None:
    objects = Faulty(tmp_path / "s", put=[DOWN] * 4)
    store_with(objects).put_record("a", b"1")
    objects.faults = {"put": [DOWN] * 99}
    with pytest.raises(StoreUnreachable):
        store_with(objects).put_record("a", b"1")
    assert objects.calls.count("put") == 10 and sum(slept) < 8


def test_outage_is_waited_for_and_reported_at_growing_intervals(tmp_path: Path, slept: list[float]) -> None:
    objects, said = Faulty(tmp_path / "s", put=[DOWN] * 99), list[str]()
    store = store_with(objects, seconds=1800, report=said.append)
    store.put_record("a", b"1")
    assert 600 < sum(slept) < 1200
    assert 3 <= len(said) <= 6
    assert said[0] == "down; waiting for the store for up to 30 min 00 s"
    objects.faults = {"put": [DOWN] * 999}
    with pytest.raises(StoreUnreachable):
        store.put_record("a", b"1")
    assert sum(slept) < 3100


def test_wait_ends_when_a_stop_is_requested(tmp_path: Path, slept: list[float]) -> None:
    def check() -> None:
        if sum(slept) > 100:
            raise KeyboardInterrupt

    store = store_with(Faulty(tmp_path / "s", put=[DOWN] * 999), seconds=1800, check_stop=check)
    with pytest.raises(KeyboardInterrupt):
        store.put_record("a", b"1")
    assert sum(slept) < 101


def test_refused_access_does_not_wait(tmp_path: Path, slept: list[float]) -> None:
    objects = Faulty(tmp_path / "s", put=[AccessDenied("403")])
    store_with(objects, seconds=1800).put_record("a", b"1")
    objects.faults = {"put": [AccessDenied("403")] * 9}
    with pytest.raises(AccessDenied):
        store_with(objects, seconds=1800).put_record("a", b"1")
    assert sum(slept) < 3


def test_store_without_waiting_fails_at_once(tmp_path: Path, slept: list[float]) -> None:
    objects = Faulty(tmp_path / "s", put=[DOWN] * 99)
    with pytest.raises(StoreUnreachable):
        store_with(objects, seconds=1800).without_waiting().put_record("a", b"1")
    assert sum(slept) < 4


def test_folder_store_that_disappears_is_unreachable_and_not_created_again(tmp_path: Path) -> None:
    objects = FileObjects(tmp_path / "s")
    objects.put_bytes("records/a", b"1")
    shutil.move(tmp_path / "s", tmp_path / "away")
    for access in (
        lambda: objects.get_bytes("records/a"),
        lambda: objects.put_bytes("records/b", b"2"),
        lambda: objects.size("records/a"),
        lambda: list(objects.keys("records/")),
    ):
        with pytest.raises(StoreUnreachable, match="has disappeared"):
            access()
    (tmp_path / "s").mkdir()  # the mount point without its file system
    with pytest.raises(StoreUnreachable, match="has disappeared"):
        objects.put_bytes("records/b", b"2")
    assert not any((tmp_path / "s").iterdir())
    (tmp_path / "s").rmdir()
    shutil.move(tmp_path / "away", tmp_path / "s")
    assert objects.get_bytes("records/a") == b"1"


@pytest.mark.parametrize(
    ("code", "written", "kind"),
    [
        (errno.ESTALE, False, StoreUnreachable),
        (errno.EIO, False, StoreUnreachable),
        (errno.ENOTCONN, False, StoreUnreachable),
        (errno.EROFS, True, StoreUnreachable),
        (errno.EROFS, False, AccessDenied),
        (errno.EACCES, True, AccessDenied),
        (errno.ENOSPC, True, StoreError),
    ],
)
def test_errors_of_a_file_system_are_classified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, written: bool, kind: type[StoreError]
) -> None:
    objects = FileObjects(tmp_path / "s")
    if written:
        objects.put_bytes("records/a", b"1")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(StoreError, match=r"cannot write records/b") as raised:
            objects.put_bytes("records/b", b"2")
    assert type(raised.value) is kind


def test_unreadable_folder_is_not_taken_for_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = FileObjects(tmp_path / "s")
    objects.put_bytes("records/a/b", b"1")
    scandir = os.scandir

    def stale(path: Any) -> Any:
        if str(path).endswith("records/a"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(StoreUnreachable, match="Stale"):
        list(objects.keys("records/"))


def test_local_file_that_cannot_be_read_is_not_an_outage(tmp_path: Path) -> None:
    for objects in (FileObjects(tmp_path / "s"),):
        with pytest.raises(StoreError, match="cannot be committed, because it cannot be read") as raised:
            objects.put_file("blobs/a", tmp_path / "none", 1, hashlib.sha256(b"").hexdigest())
        assert not isinstance(raised.value, StoreUnreachable | ArtifactNotFound)
