"""Errors of requests to OpenAI-compatible chat servers."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class LlmError(Editr1Error):
    """A chat request failed."""

    exit_code = ExitCode.CONFIG


class RequestRefused(LlmError):
    """The endpoint rejects this one request (such as 400, 413 or 422). The same request would fail again."""


class EndpointUnavailable(LlmError):
    """No usable response arrived within the retries or the deadline. A later attempt may succeed."""

    exit_code = ExitCode.TRANSIENT


class EndpointMisconfigured(LlmError):
    """The endpoint rejects every request because the key, the model name or the address is wrong (401, 403, 404)."""
