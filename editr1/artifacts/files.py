"""Object store in a local folder. Each file is written under a temporary name, then renamed or hard-linked to its path."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from editr1.artifacts.errors import AccessDenied, AlreadyExists, ArtifactNotFound, StoreError
from editr1.artifacts.hashing import CHUNK, VerifiedReader
from editr1.artifacts.objects import checked_key

_SCRATCH = ".tmp"


class FileObjects:
    """``ObjectStore`` in a local folder. Each object is a file below ``root``; the first write creates this folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.absolute().as_uri()

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object atomically. With ``once``, raise AlreadyExists if the key exists."""
        with self._new_file(key, once) as file:
            file.write(data)

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Copy a file into the store. If the file changed since it was hashed, raise DigestMismatch and store nothing."""
        with path.open("rb") as source, self._new_file(key, once=False) as target:
            reader = VerifiedReader(source, path, size, sha256)
            while chunk := reader.read(CHUNK):
                target.write(chunk)

    def get_bytes(self, key: str) -> bytes:
        """Return the content of an object."""
        with self._reading(key):
            return self._path(key).read_bytes()

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the content of an object in chunks, starting at byte ``offset``."""
        with self._reading(key), self._path(key).open("rb") as file:
            file.seek(offset)
            while chunk := file.read(CHUNK):
                yield chunk

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the object does not exist."""
        path = self._path(key)
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise StoreError(f"{self.url}: cannot read {key}: {error.strerror}") from error

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.url}: cannot remove {key}: {error.strerror}") from error

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""
        start = self.root / prefix.rpartition("/")[0]
        found = []
        for folder, folders, names in os.walk(start):
            if _SCRATCH in folders:
                folders.remove(_SCRATCH)
            found += [(Path(folder) / name).relative_to(self.root).as_posix() for name in names]
        return iter(sorted(key for key in found if key.startswith(prefix)))

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ArtifactNotFound(f"{self.url}: object {key} does not exist") from None
        except OSError as error:
            raise StoreError(f"{self.url}: cannot read {key}: {error.strerror}") from error

    @contextmanager
    def _new_file(self, key: str, once: bool) -> Iterator[BinaryIO]:
        target = self._path(key)
        scratch: str | None = None
        try:
            if once and target.exists():
                raise AlreadyExists(f"{self.url}: {key} already exists and cannot be overwritten")
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / _SCRATCH).mkdir(exist_ok=True)
            number, scratch = tempfile.mkstemp(dir=self.root / _SCRATCH)
            with os.fdopen(number, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)
            if once:
                _link(scratch, target)
            else:
                os.replace(scratch, target)
                scratch = None
        except FileExistsError:
            raise AlreadyExists(f"{self.url}: {key} already exists and cannot be overwritten") from None
        except OSError as error:
            denied = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
            remedy = "; check the permissions of the folder" if denied else ""
            message = f"{self.url}: cannot write {key}: {error.strerror or error}{remedy}"
            raise (AccessDenied if denied else StoreError)(message) from error
        finally:
            if scratch is not None:
                with suppress(OSError):
                    os.unlink(scratch)


def _link(scratch: str, target: Path) -> None:
    try:
        os.link(scratch, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # The file system does not support hard links. Create the file exclusively instead. A crash may leave a partial
        # file, which is detected by its digest.
        with open(target, "xb") as file:
            file.write(Path(scratch).read_bytes())
