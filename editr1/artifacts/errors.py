"""Errors of the artifact store. Messages contain the address of the store, and the artifact or key."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class StoreError(Editr1Error):
    """Base class of all store errors, and the error for an unreachable store or an unexpected response."""

    exit_code = ExitCode.TRANSIENT


class AccessDenied(StoreError):
    """The store rejected the credentials, or no credentials were found."""

    exit_code = ExitCode.CONFIG


class ArtifactNotFound(StoreError):
    """The artifact, object or record does not exist in the store."""

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
    """A manifest violates the schema, or lists a path outside the artifact's folder. None of its content is used."""
