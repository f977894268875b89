"""Settings of the reward server and of its client."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class OpenAIEngineConfig(Settings):
    """Where the ``openai`` engine finds its server."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8001/v1"
    """Root of an OpenAI-compatible API, up to and including ``/v1``."""

    model: Annotated[str, Field(min_length=1)] = "verifier"
    """Name under which that server offers the verifier."""

    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_ENGINE_API_KEY"
    """Environment variable that holds the API key; unset means a server without keys."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Chats in flight to that server at once."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest wait for one chat's traces, in seconds."""


class ServeConfig(Settings):
    """The reward server: what it listens on, how it generates, what it accepts and how much it holds."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a pod."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port; 0 takes a free one."""

    engine: Literal["transformers", "openai"] = "transformers"
    """What generates the traces: transformers in this process, or an OpenAI-compatible server such as vLLM."""

    openai: OpenAIEngineConfig = OpenAIEngineConfig()
    """Used when ``engine`` is ``openai``."""

    device: str = "auto"
    """Torch device of the transformers engine; ``auto`` takes a GPU when there is one."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights of the transformers engine; ``auto`` keeps the type that the checkpoint was saved in."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Most tokens a trace may have. What it cuts off is the score, so leave room."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Sampling temperature of requests for several traces that name none. A single trace is greedy by default."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus of sampled traces."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most traces generated at once (items times traces, at least one item)."""

    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long an idle engine waits for more requests before it starts a batch that is not full."""

    max_queued_items: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Items queued or running at most; a request that does not fit is answered 429."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Most items in one request."""

    max_traces: Annotated[int, Field(ge=1, le=256)] = 16
    """Most traces of one item."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Most bytes of a request's body."""

    max_pixels: Annotated[int, Field(ge=1)] = 25_000_000
    """Most pixels of one picture, read from its header."""

    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Deadline of a request that names none, in seconds; also the longest that one may name."""

    body_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Longest time that a client may take to send its body, in seconds."""

    drain_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """After SIGTERM, the longest wait for accepted requests, in seconds."""

    golden_must_parse: bool = True
    """Whether the golden sample must parse before the server is ready; off for models that are not trained."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_request_items > self.max_queued_items:
            raise ValueError(
                f"max_request_items: {self.max_request_items}: must not exceed max_queued_items ({self.max_queued_items}), "
                "or the largest request could never be queued"
            )
        return self


class ClientConfig(Settings):
    """The reward client: how it spreads, retries and gives up."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 180.0
    """Total time for one call of ``score``, retries included, in seconds."""

    attempt_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Longest wait for one answer of one replica, in seconds."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Longest wait for a connection, in seconds."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Tries of one request that end in a failure; an answer 429 (busy) is waited for and does not count."""

    wait_unreachable: bool = True
    """Ask a replica that takes no connection, or answers 503 (starting, draining), again until the deadline: that does
    not count as a try either. False: it does, for somebody who wants to know soon."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Most items in one request; a longer call is split and spread over the replicas."""

    max_request_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Image bytes at which a request is split further; must stay under the server's ``max_body_bytes``."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests in flight at once, over all replicas."""

    resolve_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """How often host names are looked up again (a headless Service lists its pods there), in seconds."""

    backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """First pause after a failure of a replica, in seconds; doubles with each further one, up to 8 s."""
