"""Object store in a local folder. Each file is written under a temporary name, then renamed or hard-linked to its path."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from editr1.artifacts.errors import AccessDenied, AlreadyExists, ArtifactNotFound, StoreError, StoreUnreachable
from editr1.artifacts.hashing import CHUNK, VerifiedReader, opened_to_read
from editr1.artifacts.objects import checked_key

_SCRATCH = ".tmp"
_OUTAGES = (
    errno.EIO,
    errno.ESTALE,
    errno.EREMOTEIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ESHUTDOWN,
)
"""Error numbers of a file system whose disk or server is temporarily unavailable, such as NFS, a FUSE mount or a
network disk."""


class FileObjects:
    """``ObjectStore`` in a local folder. Each object is a file below ``root``; the first write creates this folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.absolute().as_uri()
        self._seen = self._written = False

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object atomically. With ``once``, raise AlreadyExists if the key exists."""
        with self._new_file(key, once) as file:
            file.write(data)

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Copy a file into the store. If the file changed since it was hashed, raise DigestMismatch and store nothing."""
        with opened_to_read(path) as source, self._new_file(key, once=False) as target:
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
        try:
            with self._reading(key):
                found = self._path(key).stat()
                return found.st_size if stat.S_ISREG(found.st_mode) else None
        except ArtifactNotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self._error("remove", key, error) from error

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""
        self._check_root()
        found = []
        for folder, folders, names in os.walk(
            self.root / prefix.rpartition("/")[0], onerror=partial(self._unlistable, prefix)
        ):
            if _SCRATCH in folders:
                folders.remove(_SCRATCH)
            found += [(Path(folder) / name).relative_to(self.root).as_posix() for name in names]
        self._check_root()
        return iter(sorted(key for key in found if key.startswith(prefix)))

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _check_root(self) -> None:
        """Raise StoreUnreachable if the store existed before and has disappeared, because its file system is no longer mounted.

        Without this check, a store on a network file system would appear to be empty, and the next write would create
        a new store in the mount point.
        """
        try:
            exists = any(name != _SCRATCH for name in os.listdir(self.root))
        except (FileNotFoundError, NotADirectoryError):
            exists = False
        except OSError as error:
            raise self._error("read", "the folder", error) from error
        if not exists and self._seen:
            raise StoreUnreachable(
                f"{self.url}: the folder of the store has disappeared; check that its file system is mounted"
            )

    def _unlistable(self, prefix: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise self._error("list", prefix, error) from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
            self._seen = True
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._check_root()
            raise ArtifactNotFound(f"{self.url}: object {key} does not exist") from None
        except OSError as error:
            raise self._error("read", key, error) from error

    @contextmanager
    def _new_file(self, key: str, once: bool) -> Iterator[BinaryIO]:
        target = self._path(key)
        scratch: str | None = None
        self._check_root()
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
            self._seen = self._written = True
        except FileExistsError:
            raise AlreadyExists(f"{self.url}: {key} already exists and cannot be overwritten") from None
        except OSError as error:
            raise self._error("write", key, error) from error
        finally:
            if scratch is not None:
                with suppress(OSError):
                    os.unlink(scratch)

    def _error(self, verb: str, key: str, error: OSError) -> StoreError:
        """Convert a file system error to a store error."""
        message = f"{self.url}: cannot {verb} {key}: {error.strerror or error}"
        if error.errno in _OUTAGES or (error.errno == errno.EROFS and self._written):
            # Linux makes a file system read-only after errors of its disk.
            return StoreUnreachable(f"{message}; check the disk or the file server")
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return AccessDenied(f"{message}; check the permissions of the folder")
        return StoreError(message)


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
