"""Settings of the reward server and of its client."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings


class OpenAIEngineConfig(Settings):
    """Settings of the ``openai`` engine, which generates traces on an OpenAI-compatible server."""

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
    """Address on which the server listens. Use ``0.0.0.0`` in a pod."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port on which the server listens; 0 chooses a free port."""

    engine: Literal["transformers", "openai"] = "transformers"
    """Engine that generates traces: "transformers" in this process, or "openai" on an OpenAI-compatible server such as
    vLLM."""

    openai: OpenAIEngineConfig = OpenAIEngineConfig()
    """Settings of engine ``openai``."""

    device: str = "auto"
    """Torch device of the transformers engine; ``auto`` uses a GPU if one is available."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights in the transformers engine; ``auto`` keeps that of the checkpoint."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Maximum number of tokens per trace. The score is at the end of a trace, so a limit that is too small cuts it
    off."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Sampling temperature of requests that ask for several traces and set no temperature. By default, a single trace
    is decoded greedily."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling threshold (top-p) of sampled traces."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Maximum number of traces per batch, which is the number of items (edits to score) times the number of traces per
    item. A batch has at least one item."""

    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long an idle engine waits for more requests before it starts a batch that is not full, in milliseconds."""

    max_queued_items: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Maximum number of items (edits to score) that are queued or running. A request that would exceed it gets status
    429."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Maximum number of items per request."""

    max_traces: Annotated[int, Field(ge=1, le=256)] = 16
    """Maximum number of traces per item."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Maximum size of a request body, in bytes."""

    max_pixels: Annotated[int, Field(ge=1)] = 25_000_000
    """Maximum number of pixels per image. It is checked in the image header, before decoding."""

    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Maximum deadline of a request, in seconds. It is also the deadline of requests that set none."""

    body_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Maximum time for a client to send a request body, in seconds."""

    drain_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Maximum time to finish accepted requests after SIGTERM, in seconds."""

    golden_must_parse: bool = True
    """Before it becomes ready, the server scores a test edit, the golden sample. If true, startup fails if the trace of
    this edit cannot be parsed. Disable it for untrained models."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_request_items > self.max_queued_items:
            raise ValueError(
                f"max_request_items: {self.max_request_items}: larger than max_queued_items ({self.max_queued_items}), "
                "so a request of that size could never be queued: lower it or raise max_queued_items"
            )
        return self


class ClientConfig(Settings):
    """Settings of the reward client: load balancing, retries and timeouts."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 180.0
    """Maximum duration of one call of ``score`` including its retries, in seconds."""

    attempt_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Timeout of one attempt at one replica, in seconds."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Timeout of a connection attempt, in seconds."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Maximum number of failed attempts per request. Status 429 (busy) does not count: the client waits and retries."""

    wait_unreachable: bool = True
    """If true, a replica that refuses connections or returns 503 (because it starts or drains) is retried until the
    deadline, and these attempts do not count towards ``max_attempts``. If false, they count, so that a call fails
    early."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Maximum number of items (edits to score) per request. Larger calls are split and distributed over the
    replicas."""

    max_request_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Maximum total size of the images in a request, in bytes. Larger requests are split. It must be below the server's
    ``max_body_bytes``."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum number of concurrent requests over all replicas."""

    resolve_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Interval at which host names are resolved again, in seconds. With a headless Service, the client finds new pods
    in this way."""

    backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """Delay after the first failure of a replica, in seconds; it doubles with each further failure, up to 8 s."""
