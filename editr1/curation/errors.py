"""What can go wrong in curation."""

from __future__ import annotations


class CurationError(RuntimeError):
    """Curation cannot go on; the message says what to change."""


class VlmError(CurationError):
    """A chat endpoint gave no answer."""


class VlmRefused(VlmError):
    """The endpoint refused this one request (400, 413, 422): asking again the same way is no use."""


class VlmUnavailable(VlmError):
    """No answer within the retries or the deadline."""


class VlmMisconfigured(VlmError):
    """The endpoint refuses every request: wrong key, model or address (401, 403, 404)."""
