"""The artifact store. It stores artifacts (immutable folders of files, identified by a digest) and small records.

A store is a local folder (``file://``) or a bucket of an S3-compatible server (``s3://``).
"""

from editr1.artifacts.errors import (
    AccessDenied,
    AlreadyExists,
    ArtifactNotFound,
    DigestMismatch,
    InvalidManifest,
    StoreError,
    StoreMisconfigured,
    StoreUnreachable,
    UnusableFolder,
)
from editr1.artifacts.manifest import Manifest, ManifestFile
from editr1.artifacts.reliable import OutageWait
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
    "OutageWait",
    "Problem",
    "StoreConfig",
    "StoreError",
    "StoreMisconfigured",
    "StoreUnreachable",
    "UnusableFolder",
    "open_store",
]
