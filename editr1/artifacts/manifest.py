"""The manifest of an artifact, which lists its files, its origin and its parents.

The SHA-256 digest of the manifest identifies the artifact.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, Required, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from editr1.artifacts.errors import InvalidManifest
from editr1.artifacts.hashing import PREFIX

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ManifestFile(_FrozenModel):
    """One file of an artifact."""

    path: str
    """Path relative to the artifact's folder, with "/" as separator."""
    size: Annotated[int, Field(ge=0)]
    """Size of the file in bytes."""
    digest: Digest
    """SHA-256 of the file."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or any(ord(char) < 32 or char in "\\\x7f" for char in path):
            raise ValueError(
                "must be a relative path; empty parts, '.', '..', backslashes and control characters are not allowed"
            )
        if len(path) > 1000 or ":" in parts[0]:
            raise ValueError("must have at most 1000 characters, and must not contain ':' before the first '/'")
        return path


class ManifestFields(TypedDict, total=False):
    """The fields of a :class:`Manifest` that the caller of ``commit`` provides, that is, all except ``files``."""

    kind: Required[str]
    stage: Required[str]
    run: str
    parents: Sequence[str]
    config_digest: str
    git_revision: str
    attributes: Mapping[str, str]


class Manifest(_FrozenModel):
    """Manifest of an artifact. It contains no date, so that the same files and fields always result in the same digest."""

    format: Literal["editr1.dev/artifact/v1"] = "editr1.dev/artifact/v1"
    """Version of the manifest format."""
    kind: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """Kind of artifact, for example verifier, editor, rows, pairs, cases, checkpoint or import."""
    stage: str
    """Stage that produced the artifact."""
    run: str = ""
    """Run that produced the artifact; empty if it was not produced by a run."""
    parents: tuple[Digest, ...] = ()
    """Digests of the artifacts from which this one was produced, sorted."""
    config_digest: str = ""
    """Digest of everything that determines the outputs: inputs, settings and seed."""
    git_revision: str = ""
    """Git revision of the code with which the run was submitted."""
    attributes: Mapping[str, str] = {}
    """Additional properties of the artifact. Their values are text."""
    files: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]
    """Every file of the artifact, sorted by path."""

    @field_validator("files")
    @classmethod
    def _distinct(cls, files: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        paths = [file.path for file in files]
        folders = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        if paths != sorted(set(paths)) or folders.intersection(paths):
            raise ValueError("paths must be sorted and distinct, and no path may be both a file and a folder")
        return files

    @property
    def digest(self) -> str:
        """Digest of the JSON that :meth:`canonical` returns, as ``sha256:<hex>``."""
        return digest_of(self.canonical())

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files)

    def canonical(self) -> bytes:
        """Return the JSON that is stored and hashed: UTF-8 with sorted keys and no spaces."""
        content = self.model_dump(mode="json")
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 digest of ``data`` as ``sha256:<hex>``."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Return True if ``text`` is a complete digest ``sha256:<64 hex digits>``."""
    return _DIGEST.fullmatch(text) is not None


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Parse a stored manifest.

    If it is invalid, raise InvalidManifest. ``where`` identifies the manifest in the error message.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidManifest(f"{where}: {field}: {str(first['input'])[:200]!r}: {first['msg']}") from None
