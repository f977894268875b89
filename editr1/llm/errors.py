"""Errors of requests to OpenAI-compatible chat servers."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class LlmError(Editr1Error):
    """A chat request failed. The message names the server and the model, and quotes the server's answer.

    ``status`` is the HTTP status of the answer, or the numeric code of an error object in it; None if there was no
    answer. ``words`` is the text of the server's answer on one line, shortened; empty if there was none.
    """

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, *, status: int | None = None, words: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.words = words


class RequestRefused(LlmError):
    """The endpoint rejected the request, for example with status 400, 413 or 422. A retry would fail, too."""


class InvalidResponse(RequestRefused):
    """The server answered with status 200, but not with a chat completion, for example with an HTML page."""


class EndpointUnavailable(LlmError):
    """All retries failed, or the deadline passed, without a valid response. A later attempt may succeed.

    ``retry_after`` is the time in seconds after which the server wants the request again, or None if it does not say so.
    """

    exit_code = ExitCode.TRANSIENT

    def __init__(
        self, message: str, *, status: int | None = None, words: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, words=words)
        self.retry_after = retry_after


class EndpointMisconfigured(LlmError):
    """The endpoint rejects every request because the API key, the model name or the URL is wrong (401, 403, 404)."""
