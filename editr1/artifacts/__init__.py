"""Artifact store: immutable artifacts and small records in ``file://`` and ``s3://`` stores."""

from editr1.artifacts.errors import (
    AccessDenied,
    AlreadyExists,
    ArtifactNotFound,
    DigestMismatch,
    InvalidManifest,
    StoreError,
    UnusableFolder,
)
from editr1.artifacts.manifest import Manifest, ManifestFile
from editr1.artifacts.store import ArtifactStore, Problem, open_store
from editr1.config.store import StoreConfig

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "ArtifactNotFound",
    "ArtifactStore",
    "DigestMismatch",
    "InvalidManifest",
    "Manifest",
    "ManifestFile",
    "Problem",
    "StoreConfig",
    "StoreError",
    "UnusableFolder",
    "open_store",
]
