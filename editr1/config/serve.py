"""Settings of the reward server and of its client."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class OpenAIEngineConfig(Settings):
    """The OpenAI-compatible server of the ``openai`` engine."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8001/v1"
    """Root URL of the API, up to and including ``/v1``."""

    model: Annotated[str, Field(min_length=1)] = "verifier"
    """Model name of the verifier on that server."""

    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_ENGINE_API_KEY"
    """Environment variable that holds the API key. If it is unset, requests are sent without a key."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum number of concurrent chat requests."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Timeout of one chat request, in seconds."""


class ServeConfig(Settings):
    """Settings of the reward server: address, generation and request limits."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` in a pod."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port; 0 picks a free one."""

    engine: Literal["transformers", "openai"] = "transformers"
    """Engine that generates traces: transformers in this process, or an OpenAI-compatible server such as vLLM."""

    openai: OpenAIEngineConfig = OpenAIEngineConfig()
    """Settings of engine ``openai``."""

    device: str = "auto"
    """Torch device of the transformers engine; ``auto`` uses a GPU if one is available."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights in the transformers engine; ``auto`` keeps that of the checkpoint."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Maximum number of tokens per trace. The score comes last in a trace, so a limit that is too small truncates it."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Sampling temperature of requests for several traces that do not set one. A single trace is greedy by default."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Top-p of sampled traces."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Maximum number of traces per batch (items times traces per item). A batch has at least one item."""

    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long an idle engine waits for more requests before it starts a batch that is not full, in milliseconds."""

    max_queued_items: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Maximum number of queued and running items. A request that does not fit gets status 429."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Maximum number of items per request."""

    max_traces: Annotated[int, Field(ge=1, le=256)] = 16
    """Maximum number of traces per item."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Maximum size of a request body, in bytes."""

    max_pixels: Annotated[int, Field(ge=1)] = 25_000_000
    """Maximum number of pixels per image, checked in the image header."""

    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Deadline of requests that do not set one, and the longest deadline that a request may set, in seconds."""

    body_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Maximum time for a client to send a request body, in seconds."""

    drain_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Maximum time to finish accepted requests after SIGTERM, in seconds."""

    golden_must_parse: bool = True
    """Require that the trace of the golden sample can be parsed before the server becomes ready. Disable it for
    untrained models."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_request_items > self.max_queued_items:
            raise ValueError(
                f"max_request_items: {self.max_request_items}: larger than max_queued_items ({self.max_queued_items}), "
                "so the largest request could never be queued: lower it or raise max_queued_items"
            )
        return self


class ClientConfig(Settings):
    """Settings of the reward client: load balancing, retries and timeouts."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 180.0
    """Total time of one call of ``score``, retries included, in seconds."""

    attempt_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Timeout of one attempt at one replica, in seconds."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Timeout of a connection attempt, in seconds."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Maximum number of failed attempts per request. Status 429 (busy) does not count: the client waits and retries."""

    wait_unreachable: bool = True
    """Retry replicas that refuse connections or return 503 (starting or draining) until the deadline, without counting
    attempts. If false, these attempts count, so that a call fails early."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Maximum number of items per request; larger calls are split and distributed over the replicas."""

    max_request_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Image bytes above which a request is split further. Must be below the server's ``max_body_bytes``."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum number of concurrent requests over all replicas."""

    resolve_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Interval at which host names are resolved again, in seconds. A headless Service lists its pods in DNS."""

    backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """Delay after the first failure of a replica, in seconds; it doubles with each further failure, up to 8 s."""
