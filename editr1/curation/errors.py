"""What can go wrong in curation."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class CurationError(Editr1Error, RuntimeError):
    """Curation cannot go on; the message says what to change."""

    exit_code = ExitCode.CONFIG


class VlmError(CurationError):
    """A chat endpoint gave no answer."""


class VlmRefused(VlmError):
    """The endpoint refused this one request (400, 413, 422): asking again the same way is no use."""


class VlmUnavailable(VlmError):
    """No answer within the retries or the deadline."""

    exit_code = ExitCode.TRANSIENT


class VlmMisconfigured(VlmError):
    """The endpoint refuses every request: wrong key, model or address (401, 403, 404)."""
