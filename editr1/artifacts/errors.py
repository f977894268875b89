"""What can go wrong with a store. Every message names the store's address and the artifact or key."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every complaint of a store; by itself: the store cannot be reached, or answered something unexpected."""


class AccessDenied(StoreError):
    """The store refused the credentials, or none were found."""


class ArtifactNotFound(StoreError):
    """The store has no artifact (or object) of that name."""


class UnusableFolder(StoreError):
    """A folder of this machine cannot become an artifact, or hold one."""


class AlreadyExists(StoreError):
    """A put-once key was written before."""


class DigestMismatch(StoreError):
    """Bytes do not have the digest that they are stored or listed under."""


class InvalidManifest(DigestMismatch):
    """A manifest is not one, or names a path outside of its folder; nothing of it is trusted."""
