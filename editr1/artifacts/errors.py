"""Errors of the artifact store. Each message names the store and the artifact or key that could not be accessed."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class StoreError(Editr1Error):
    """Base class of all errors of the store. It is raised directly if the store is unreachable or its response is invalid."""

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
    """A conditional write was refused, because an object with this key already exists."""


class DigestMismatch(StoreError):
    """Stored bytes do not match their digest."""

    exit_code = ExitCode.INPUT


class InvalidManifest(DigestMismatch):
    """A manifest violates the schema, or lists a path outside the artifact's folder. Such an artifact is not downloaded."""
