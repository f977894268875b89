"""Errors of requests to OpenAI-compatible chat servers."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class LlmError(Editr1Error):
    """A chat request failed."""

    exit_code = ExitCode.CONFIG


class RequestRefused(LlmError):
    """The endpoint rejected the request, for example with status 400, 413 or 422. A retry would fail, too."""


class EndpointUnavailable(LlmError):
    """All retries failed, or the deadline passed, without a valid response. A later attempt may succeed."""

    exit_code = ExitCode.TRANSIENT


class EndpointMisconfigured(LlmError):
    """The endpoint rejects every request because the API key, the model name or the URL is wrong (401, 403, 404)."""
