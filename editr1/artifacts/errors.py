"""What can go wrong with a store. Every message names the store's address and the artifact or key."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class StoreError(Editr1Error):
    """Base of every complaint of a store; by itself: the store cannot be reached, or answered something unexpected."""

    exit_code = ExitCode.TRANSIENT


class AccessDenied(StoreError):
    """The store refused the credentials, or none were found."""

    exit_code = ExitCode.CONFIG


class ArtifactNotFound(StoreError):
    """The store has no artifact (or object) of that name."""

    exit_code = ExitCode.INPUT


class UnusableFolder(StoreError):
    """A folder of this machine cannot become an artifact, or hold one."""

    exit_code = ExitCode.CONFIG


class AlreadyExists(StoreError):
    """A put-once key was written before."""


class DigestMismatch(StoreError):
    """Bytes do not have the digest that they are stored or listed under."""

    exit_code = ExitCode.INPUT


class InvalidManifest(DigestMismatch):
    """A manifest is not one, or names a path outside of its folder; nothing of it is trusted."""
