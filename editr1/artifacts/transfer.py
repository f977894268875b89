"""Bring one blob down: resumed where it stopped, hashed on its way, moved into place only when it is right."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from editr1.artifacts.errors import AccessDenied, ArtifactNotFound, DigestMismatch, StoreError
from editr1.artifacts.hashing import CHUNK
from editr1.artifacts.objects import ObjectStore

ATTEMPTS = 5


def download(objects: ObjectStore, key: str, size: int, sha256: str, partial: Path, target: Path) -> None:
    """Fetch object ``key`` to ``target`` by way of ``partial``, which may hold its beginning from an earlier try.

    A broken connection is taken up again at the byte where it broke, ``ATTEMPTS`` times in all without progress.

    Raises:
        DigestMismatch: the object, fetched from its first byte, is not what its name says.
        ArtifactNotFound, AccessDenied, StoreError: as the store answers.
    """
    resumed = partial.exists() and partial.stat().st_size > 0
    if _complete(objects, key, size, sha256, partial):
        _place(partial, target)
        return
    partial.unlink(missing_ok=True)
    # What an earlier process left may be at fault; what this one fetched whole is not.
    if resumed and _complete(objects, key, size, sha256, partial):
        _place(partial, target)
        return
    partial.unlink(missing_ok=True)
    raise DigestMismatch(f"{objects.url}: {key}: the stored bytes do not have this digest ({size} bytes were expected)")


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
                    raise broken or StoreError(f"{objects.url}: {key}: ends after {have} of {size} bytes")
                time.sleep(min(0.1 * 2**failures, 5.0))
        file.flush()
    return have == size and digest.hexdigest() == sha256


def _place(partial: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, target)
