"""The artifact store, which stores immutable artifacts and small mutable records in an object store.

The objects have these keys: ``blobs/sha256/<2 hex>/<hex>`` (file bytes), ``manifests/sha256/<hex>.json``,
``records/<key>``.
"""

from __future__ import annotations

import builtins
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, Unpack

from filelock import FileLock
from pydantic import ValidationError

from editr1.artifacts.destination import prepare_destination
from editr1.artifacts.errors import (
    AlreadyExists,
    ArtifactNotFound,
    DigestMismatch,
    StoreError,
    StoreUnreachable,
    UnusableFolder,
)
from editr1.artifacts.hashing import PREFIX, file_sha256
from editr1.artifacts.manifest import Manifest, ManifestFields, ManifestFile, digest_of, is_digest, parse_manifest
from editr1.artifacts.objects import ObjectStore
from editr1.artifacts.reliable import REREAD_DELAYS, OutageWait, ReliableObjects, read_again
from editr1.artifacts.transfer import download
from editr1.config.store import StoreConfig, store_at
from editr1.terminal.text import is_utf8

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("editr1.store")


@dataclass(frozen=True)
class Problem:
    """A missing or damaged file of an artifact. The stored bytes of a damaged file do not match the manifest."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ArtifactStore:
    """Storage of artifacts by digest and of records by key. Several threads and processes can use a store concurrently."""

    def __init__(self, objects: ObjectStore, *, transfers: int = 4) -> None:
        self.objects = objects
        self._transfers = transfers
        self._faulty: set[str] = set()
        """Digests of files that were still missing or damaged after all retries. Several artifacts can share such a file, so it
        is read without retries from then on."""

    @property
    def url(self) -> str:
        """Address of the store. It contains no credentials."""
        return self.objects.url

    def without_waiting(self) -> ArtifactStore:
        """Return the same store, but with operations that raise StoreUnreachable during an outage instead of waiting."""
        objects = self.objects
        return ArtifactStore(
            ReliableObjects(objects.inner) if isinstance(objects, ReliableObjects) else objects,
            transfers=self._transfers,
        )

    def describe(self, folder: Path, **fields: Unpack[ManifestFields]) -> Manifest:
        """Return the manifest that :meth:`commit` would store for ``folder``, without storing anything.

        Raises:
            UnusableFolder: the folder does not exist or has no files, or a field of the manifest is invalid.
        """

        def described(path: Path) -> dict[str, object]:
            return {
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "digest": PREFIX + file_sha256(path),
            }

        files = sorted(self._each(described, list(_files_below(folder))), key=lambda file: str(file["path"]))
        if not files:
            raise UnusableFolder(f"{folder}: cannot be committed as an artifact: it contains no files; check the path")
        try:
            return Manifest.model_validate(
                {**fields, "parents": tuple(sorted(set(fields.get("parents", ())))), "files": tuple(files)}
            )
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UnusableFolder(
                f"{folder}: cannot be committed as an artifact: {field}: {str(first['input'])[:200]!r}: {first['msg']}"
            ) from None

    def commit(self, folder: Path, *, repair: bool = False, **fields: Unpack[ManifestFields]) -> Manifest:
        """Store the files of ``folder`` as an artifact: first all files, then the manifest that lists them.

        The artifact exists as soon as the manifest is written. Committing the same files and fields again, even
        concurrently, results in the same artifact. Files that are already in the store are not uploaded again.
        Symbolic links to files are followed, but links to folders are rejected. A stored file of the expected size is
        assumed to be intact; with ``repair`` it is verified, and replaced if it is damaged. A damaged manifest is
        always replaced.

        Raises:
            UnusableFolder: for the same reasons as in :meth:`describe`.
            StoreError: the store is unreachable or fails.
            DigestMismatch: a file changed while it was read.
        """
        manifest = self.describe(folder, **fields)
        distinct = {file.digest: file for file in manifest.files}
        self._each(lambda file: self._upload(folder, file, repair=repair), distinct.values())
        try:
            self.objects.put_bytes(manifest_key(manifest.digest), manifest.canonical(), once=True)
        except AlreadyExists:
            self._replace_damaged(manifest)
        return manifest

    def manifest(self, digest: str) -> Manifest:
        """Read the manifest of the artifact ``digest``, which has the form ``sha256:<hex>``.

        A missing or damaged manifest is read again before an exception is raised.

        Raises:
            ArtifactNotFound: the artifact does not exist.
            DigestMismatch: the stored manifest does not match the digest.
            InvalidManifest: the manifest violates the schema, or lists a path outside the artifact's folder.
        """
        if not is_digest(digest):
            raise ArtifactNotFound(f"{self.url}: {digest!r} is not a digest; it must be sha256:<64 hex digits>")
        data = read_again(lambda: self._manifest_bytes(digest), DigestMismatch, ArtifactNotFound)
        return parse_manifest(data, f"{self.url}: manifest {digest}")

    def fetch(self, digest: str, dest: Path) -> Path:
        """Download an artifact into the folder ``dest``, verify the digest of every file, and return ``dest``.

        An existing file with the expected digest is not downloaded again. A file with a different digest is replaced.
        Files of the artifact that was fetched into ``dest`` before are removed. If ``dest`` contains other files, the call
        is refused, because a reader would take them for part of the artifact. An interrupted download is resumed by the
        next call, even in another process. A file lock serializes calls for the same ``dest``.

        Raises:
            ArtifactNotFound, DigestMismatch: the manifest or a file is missing or damaged.
            InvalidManifest: for the same reasons as in :meth:`manifest`.
            UnusableFolder: ``dest`` is not a folder, contains files that are not part of the artifact, or contains a
                symbolic link that points outside it.
            StoreError: the store is unreachable, or the folder cannot be written.
        """
        manifest = self.manifest(digest)
        try:
            dest.mkdir(parents=True, exist_ok=True)
            partials = dest.parent / f".{dest.resolve().name}.partial"
            with FileLock(dest.parent / f".{dest.resolve().name}.lock"):
                prepare_destination(dest, manifest)
                wanted = [file for file in manifest.files if not _present(_inside(dest, file.path), file)]
                if wanted:
                    partials.mkdir(exist_ok=True)
                    # Files with the same digest share a partial download, so they are fetched sequentially.
                    groups: dict[str, builtins.list[ManifestFile]] = {}
                    for file in wanted:
                        groups.setdefault(file.digest, []).append(file)
                    self._each(lambda group: self._fetch_group(digest, group, dest, partials), groups.values())
                    _remove_if_empty(partials)
        except OSError as error:
            kind = UnusableFolder if dest.exists() and not dest.is_dir() else StoreError
            raise kind(f"{dest}: cannot fetch {digest} into this folder: {error.strerror or error}") from error
        return dest

    def verify(self, digest: str) -> builtins.list[Problem]:
        """Read all stored files of an artifact, and return the missing or damaged ones, sorted by path."""
        found = self._each(lambda file: (file, self._fault(file)), self.manifest(digest).files)
        return [Problem(file.path, fault) for file, fault in found if fault]

    def missing(self, digest: str) -> str:
        """Return the reason why the artifact ``digest`` cannot be read, or an empty string if it is complete.

        An artifact cannot be read if its manifest is damaged, or if the manifest or a file is not in the store. The
        contents of the files are not read; see :meth:`verify`.
        """
        try:
            files = {file.digest: file for file in self.manifest(digest).files}.values()
        except (ArtifactNotFound, DigestMismatch) as error:
            return str(error)

        def absent() -> builtins.list[ManifestFile]:
            sizes = self._each(lambda file: self.objects.size(blob_key(file.digest.removeprefix(PREFIX))), files)
            return [file for file, size in zip(files, sizes, strict=True) if size != file.size]

        def check() -> None:
            if missing := absent():
                raise ArtifactNotFound(f"{self.url}: file {missing[0].path} of artifact {digest} is missing")

        try:
            read_again(check, ArtifactNotFound, delays=self._delays(*files))
        except ArtifactNotFound as error:
            self._faulty.update(file.digest for file in absent())
            return str(error)
        self._faulty.difference_update(file.digest for file in files)
        return ""

    def list(self) -> Iterator[Manifest]:
        """Yield the manifests of all artifacts in the store, sorted by digest. Other objects are ignored."""
        for key in self.objects.keys("manifests/sha256/"):
            digest = PREFIX + key.rpartition("/")[2].removesuffix(".json")
            if is_digest(digest):
                try:
                    yield self.manifest(digest)
                except ArtifactNotFound as error:
                    log.warning("%s, although the store lists it; this object is skipped", error)

    def lineage(self, digest: str) -> builtins.list[Manifest]:
        """Return the manifests of the artifact's ancestors: its parents, their parents, and so on, nearest first.

        Ancestors that are not in this store are omitted.
        """
        seen: dict[str, Manifest | None] = {digest: None}
        queue = [*self.manifest(digest).parents]
        while queue:
            current = queue.pop(0)
            if current in seen:
                continue
            seen[current] = None
            with suppress(ArtifactNotFound):  # read only once, because ancestors are often in another store
                data = read_again(partial(self._manifest_bytes, current), DigestMismatch)
                parent = seen[current] = parse_manifest(data, f"{self.url}: manifest {current}")
                queue += parent.parents
        return [manifest for manifest in seen.values() if manifest is not None]

    def put_record(self, key: str, data: bytes, *, if_none_match: bool = False) -> None:
        """Write or replace a small record.

        With ``if_none_match``, raise AlreadyExists if the key exists with different content.
        """
        self.objects.put_bytes(f"records/{key}", data, once=if_none_match)

    def get_record(self, key: str) -> bytes | None:
        """Return the content of a record, or None if the record does not exist."""
        try:
            return self.objects.get_bytes(f"records/{key}")
        except ArtifactNotFound:
            return None

    def list_records(self, prefix: str) -> builtins.list[str]:
        """Return the keys of the records that start with ``prefix``, sorted."""
        return [key.removeprefix("records/") for key in self.objects.keys(f"records/{prefix}")]

    def _manifest_bytes(self, digest: str) -> bytes:
        try:
            data = self.objects.get_bytes(manifest_key(digest))
        except ArtifactNotFound:
            raise ArtifactNotFound(f"{self.url}: artifact {digest} does not exist") from None
        if digest_of(data) != digest:
            raise DigestMismatch(
                f"{self.url}: {manifest_key(digest)}: the manifest is damaged: its bytes have the digest"
                f" {digest_of(data)}; store the artifact again, or restore this object from a backup"
            )
        return data

    def _replace_damaged(self, manifest: Manifest) -> None:
        """Rewrite the stored manifest if its bytes do not match its digest."""
        try:
            self.manifest(manifest.digest)
        except DigestMismatch as error:
            log.warning("the damaged manifest is replaced: %s", error)
            self.objects.put_bytes(manifest_key(manifest.digest), manifest.canonical())

    def _upload(self, folder: Path, file: ManifestFile, *, repair: bool) -> None:
        sha256 = file.digest.removeprefix(PREFIX)
        if self.objects.size(blob_key(sha256)) != file.size or (repair and self._fault(file)):
            self.objects.put_file(blob_key(sha256), folder / file.path, file.size, sha256)

    def _fetch_group(self, artifact: str, group: Sequence[ManifestFile], dest: Path, partials: Path) -> None:
        for file in group:
            sha256 = file.digest.removeprefix(PREFIX)
            try:
                place = partials / sha256, _inside(dest, file.path)
                download(self.objects, blob_key(sha256), file.size, sha256, *place, delays=self._delays(file))
            except (ArtifactNotFound, DigestMismatch) as error:
                self._faulty.add(file.digest)
                raise type(error)(f"artifact {artifact}, file {file.path}: {error}") from None

    def _fault(self, file: ManifestFile) -> str:
        """Return the reason why a stored file is damaged or missing, or an empty string if it is intact."""

        def check() -> None:
            if fault := self._fault_of_read(file):
                raise DigestMismatch(fault)

        try:
            read_again(check, DigestMismatch, StoreUnreachable, delays=self._delays(file))
        except DigestMismatch as error:
            self._faulty.add(file.digest)
            return str(error)
        self._faulty.discard(file.digest)
        return ""

    def _delays(self, *files: ManifestFile) -> tuple[float, ...]:
        """Return the delays with which the files are read again; none if one of them is known to be faulty."""
        return () if any(file.digest in self._faulty for file in files) else REREAD_DELAYS

    def _fault_of_read(self, file: ManifestFile) -> str:
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.objects.stream(blob_key(file.digest.removeprefix(PREFIX))) if file.size else ():
                digest.update(chunk)
                size += len(chunk)
        except ArtifactNotFound:
            return f"the store has no file with the digest {file.digest}"
        if PREFIX + digest.hexdigest() != file.digest:
            return (
                f"the stored file has {size} bytes and the digest {PREFIX}{digest.hexdigest()}, "
                f"but the manifest states {file.size} bytes and {file.digest}"
            )
        return ""

    def _each(self, work: Callable[[T], R], items: Iterable[T]) -> builtins.list[R]:
        with ThreadPoolExecutor(self._transfers) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def open_store(where: StoreConfig | str, wait: OutageWait | None = None) -> ArtifactStore:
    """Return the store for a configuration or for an address (``file://`` or ``s3://``).

    For an address, the default settings of a store are used. This function does not access the disk or the network.

    Args:
        where: the configuration or the address.
        wait: settings for operations while the store is unreachable. If None, they fail after a few quick retries.

    Raises:
        AccessDenied: the address starts with ``s3://`` and no credentials were found.
        ConfigError: the address is not a valid store address.
    """
    config = store_at(where) if isinstance(where, str) else where
    if config.folder is not None:
        from editr1.artifacts.files import FileObjects

        return ArtifactStore(ReliableObjects(FileObjects(config.folder), wait), transfers=config.transfers)
    from editr1.artifacts.s3 import S3Objects

    return ArtifactStore(ReliableObjects(S3Objects(config), wait), transfers=config.transfers)


def blob_key(sha256: str) -> str:
    """Return the key of the object with the bytes of a file. ``sha256`` is the file's SHA-256 as 64 hex digits."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def manifest_key(digest: str) -> str:
    """Return the key of the object with the manifest of the artifact ``digest``."""
    return f"manifests/sha256/{digest.removeprefix(PREFIX)}.json"


def _files_below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UnusableFolder(f"{folder}: cannot be committed as an artifact: it is not a folder; check the path")
    for current, folders, names in os.walk(folder):
        for name in folders:
            if (Path(current) / name).is_symlink():
                raise UnusableFolder(
                    f"{Path(current) / name}: symbolic links to folders cannot be committed; copy the files instead"
                )
        folders.sort()
        for name in sorted(names):
            path = Path(current) / name
            if not path.is_file():
                raise UnusableFolder(
                    f"{path}: cannot be committed, because it is neither a file nor a link to a file; remove it"
                )
            if not is_utf8(str(path.relative_to(folder))):
                raise UnusableFolder(
                    f"{str(path)!r}: cannot be committed, because the name of the file is not valid UTF-8; rename it"
                )
            yield path


def _present(path: Path, file: ManifestFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and PREFIX + file_sha256(path) == file.digest


def _inside(dest: Path, path: str) -> Path:
    target = dest / path
    if not target.parent.resolve().is_relative_to(dest.resolve()):
        raise UnusableFolder(f"{target}: a symbolic link points outside {dest}; remove it")
    return target


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
