"""Download one object to a file. An interrupted download can be resumed.

The target file is created only if its digest matches.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from editr1.artifacts.errors import AccessDenied, ArtifactNotFound, DigestMismatch, StoreError
from editr1.artifacts.hashing import CHUNK
from editr1.artifacts.objects import ObjectStore
from editr1.artifacts.reliable import REREAD_DELAYS, read_again

ATTEMPTS = 5


def download(
    objects: ObjectStore,
    key: str,
    size: int,
    sha256: str,
    partial: Path,
    target: Path,
    *,
    delays: tuple[float, ...] = REREAD_DELAYS,
) -> None:
    """Download the object ``key`` to ``target``. ``partial`` may hold the beginning of the object from an earlier attempt.

    After a connection error, the download continues with the first missing byte. The download fails after five
    (``ATTEMPTS``) consecutive requests without any data. If the bytes do not match the digest, the complete object is
    downloaded again, with ``delays`` in seconds.

    Raises:
        DigestMismatch: the object does not match its digest, even after several complete downloads.
        ArtifactNotFound: the object does not exist, even after several requests.
        AccessDenied, StoreError: the store rejects the request or is unreachable.
    """

    def attempt() -> None:
        if not _complete(objects, key, size, sha256, partial):
            partial.unlink(missing_ok=True)
            raise DigestMismatch(
                f"{objects.url}: {key}: the stored bytes do not match the digest in the key ({size} bytes expected); "
                "repair an artifact of a run with 'editr1 runs repair RUN --yes', and store another one again with 'editr1 artifacts push'"
            )

    if partial.exists() and partial.stat().st_size > 0:
        # The partial file of an earlier process may be damaged, which says nothing about the object.
        with suppress(DigestMismatch):
            attempt()
            _place(partial, target)
            return
    read_again(attempt, DigestMismatch, ArtifactNotFound, delays=delays)
    _place(partial, target)


def _complete(objects: ObjectStore, key: str, size: int, sha256: str, partial: Path) -> bool:
    digest = hashlib.sha256()
    have = 0
    if partial.exists():
        with partial.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                have += len(chunk)
    failures = 0
    with partial.open("ab") as file:
        while have < size:
            before = have
            broken: StoreError | None = None
            try:
                for chunk in objects.stream(key, have):
                    file.write(chunk)
                    digest.update(chunk)
                    have += len(chunk)
                    if have > size:
                        return False
            except (ArtifactNotFound, AccessDenied):
                raise
            except StoreError as error:
                broken = error
            if have < size and broken is None and (objects.size(key) or 0) < size:
                return False
            if have < size:
                failures = 1 if have > before else failures + 1
                if failures >= ATTEMPTS:
                    raise broken or StoreError(
                        f"{objects.url}: {key}: the download ended after {have} of {size} bytes; try again"
                    )
                time.sleep(min(0.1 * 2**failures, 5.0))
        file.flush()
    return have == size and digest.hexdigest() == sha256


def _place(partial: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, target)
