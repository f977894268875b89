"""Errors of the artifact store. Every message has the address of the store and the artifact or key."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class StoreError(Editr1Error):
    """Base class of all store errors. Raised itself if the store is unreachable or its response is unexpected."""

    exit_code = ExitCode.TRANSIENT


class AccessDenied(StoreError):
    """The store rejected the credentials, or there are none."""

    exit_code = ExitCode.CONFIG


class ArtifactNotFound(StoreError):
    """The store has no such artifact, object or record."""

    exit_code = ExitCode.INPUT


class UnusableFolder(StoreError):
    """A local folder cannot be committed as an artifact, or an artifact cannot be fetched into it."""

    exit_code = ExitCode.CONFIG


class AlreadyExists(StoreError):
    """The key of a conditional write already exists."""


class DigestMismatch(StoreError):
    """Stored bytes do not match their digest."""

    exit_code = ExitCode.INPUT


class InvalidManifest(DigestMismatch):
    """A manifest violates the schema, or has a path outside of its folder; nothing in it is trusted."""
