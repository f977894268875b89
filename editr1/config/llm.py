"""Settings of OpenAI-compatible chat endpoints and of the models behind them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from editr1.config.base import Settings, Temperature

Parameter = Literal["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "n", "seed"]
"""Name of a parameter of chat requests that can be omitted. ``max_tokens`` denotes the length parameter."""

_FIXED = ("model", "messages", "stream", "n")


class ServerConfig(Settings):
    """Settings for the format and the retries of requests to an OpenAI-compatible chat server."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = 6
    """Maximum number of retries of a request after HTTP status 408, 409, 425, 429 or 5xx, or after a broken
    connection. The delay before a retry is the value of the server's ``Retry-After`` header, but at most two minutes.
    Without this header, the delay starts at 0.5 s and doubles up to 8 s, with jitter."""
    length_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the request parameter that limits the number of tokens per answer. Some models accept only
    ``max_completion_tokens``."""
    omit_parameters: tuple[Parameter, ...] = ()
    """Parameters that are not sent, for servers that reject them. ``max_tokens`` denotes the length parameter. If
    ``n`` is omitted, one request is sent per answer."""
    extra_body: dict[str, JsonValue] = {}
    """Fields that are added to the JSON body of every request and replace fields of the same name, such as
    ``chat_template_kwargs: {enable_thinking: false}``."""

    @field_validator("extra_body")
    @classmethod
    def _allowed(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        found = [name for name in _FIXED if name in value]
        if found:
            raise ValueError(f"the field {found[0]!r} cannot be set here; remove it from extra_body")
        return {name: _with_integers(item) for name, item in value.items()}


class EndpointConfig(ServerConfig):
    """An OpenAI-compatible chat server that accepts images."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8100/v1"
    """Root URL of the API, up to and including ``/v1``. A proxy in the environment (``http_proxy``, ``no_proxy`` and so
    on) is used, except for servers on this machine."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_VLM_API_KEY"
    """Name of the environment variable that contains the API key. Leave the variable unset for a server without keys.
    The key is never written to a file."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Maximum number of concurrent requests to this endpoint."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Timeout of one attempt of a request, in seconds."""
    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 600.0
    """Deadline of one request, including its retries, in seconds."""


class VlmConfig(Settings):
    """One vision-language model behind an endpoint, and its sampling settings."""

    endpoint: str = "default"
    """Name of the endpoint that serves the model. It is a key of ``endpoints``."""
    model: Annotated[str, Field(min_length=1)] = "shapes-oracle"
    """Name of the model on the endpoint."""
    temperature: Temperature = 0.0
    """Sampling temperature of the model: 0 (greedy) or from 0.01 to 2."""
    max_tokens: Annotated[int, Field(ge=1, le=131072)] = 4096
    """Maximum number of tokens per answer."""
    send_n: bool = True
    """Request several answers in one request, with the parameter ``n``. Set it to false for servers that reject ``n``.
    One request is then sent per answer."""
    send_seed: bool = True
    """Send the parameter ``seed``, so that a server that supports it returns reproducible answers. Set it to false for
    servers that reject ``seed``."""
    prompt_price: Annotated[float, Field(ge=0.0)] = 0.0
    """Price per million prompt tokens. Reported costs are in the currency of this price."""
    completion_price: Annotated[float, Field(ge=0.0)] = 0.0
    """Price per million completion tokens, in the same currency as ``prompt_price``."""


def _with_integers(value: JsonValue) -> JsonValue:
    """Return the value with integers for numbers such as 1.0.

    Helm writes 1.0 as 1, so a pod would otherwise compute another key from the same settings.
    """
    if isinstance(value, dict):
        return {name: _with_integers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
