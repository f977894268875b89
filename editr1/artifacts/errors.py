"""Errors of the artifact store. Each message contains the store, and the artifact or key that could not be accessed."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class StoreError(Editr1Error):
    """Base class of all store errors.

    It is raised directly for temporary errors that are not outages, such as a full disk.
    """

    exit_code = ExitCode.TRANSIENT


class StoreUnreachable(StoreError):
    """The store cannot be reached, or its response is invalid or incomplete.

    The operation may or may not have been executed. This is the only error that is retried while an outage is
    tolerated (:class:`editr1.artifacts.reliable.ReliableObjects`).
    """


class StoreMisconfigured(StoreError):
    """A setting of the store, such as the bucket name, is wrong."""

    exit_code = ExitCode.CONFIG


class AccessDenied(StoreError):
    """The store rejected the credentials, or no credentials were found."""

    exit_code = ExitCode.CONFIG


class KeysNoLongerAccepted(AccessDenied):
    """The store accepted the credentials before and rejects them now: they were replaced or have expired.

    The next attempt of a stage uses the current ones, so the error is retried, but not by this process.
    """

    exit_code = ExitCode.TRANSIENT


class ArtifactNotFound(StoreError):
    """The artifact, object or record does not exist in the store."""

    exit_code = ExitCode.INPUT


class UnusableFolder(StoreError):
    """A local folder cannot be committed as an artifact, or an artifact cannot be fetched into it."""

    exit_code = ExitCode.CONFIG


class UnreadableFile(StoreError):
    """A local file that is being committed cannot be read."""


class AlreadyExists(StoreError):
    """A conditional write was rejected because an object with this key already exists."""


class DigestMismatch(StoreError):
    """Stored bytes do not match their digest."""

    exit_code = ExitCode.INPUT


class InvalidManifest(DigestMismatch):
    """A manifest violates the schema, or lists a path outside the artifact's folder. Such an artifact is not downloaded."""
