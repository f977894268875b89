"""Exceptions for failed requests to OpenAI-compatible chat servers."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class LlmError(Editr1Error):
    """A chat request failed. The message contains the server, the model and the server's response.

    ``status`` is the HTTP status of the response, or the numeric code of the error object in it. It is None if there
    was no response. ``words`` is the text of the response, shortened to one line, or empty if there was no response.
    """

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, *, status: int | None = None, words: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.words = words


class RequestRefused(LlmError):
    """The endpoint rejected the request, for example with status 400, 413 or 422. A retry would fail as well."""


class InvalidResponse(RequestRefused):
    """The server responded with status 200, but the body is not a chat completion.

    It is, for example, an HTML page.
    """


class EndpointUnavailable(LlmError):
    """All retries failed, or the deadline passed, without a valid response. A later attempt may succeed.

    ``retry_after`` is the delay in seconds that the server requested before the next attempt, or None.
    """

    exit_code = ExitCode.TRANSIENT

    def __init__(
        self, message: str, *, status: int | None = None, words: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, words=words)
        self.retry_after = retry_after


class EndpointMisconfigured(LlmError):
    """The endpoint rejects every request because the API key, the model name or the URL is wrong (401, 403, 404)."""
