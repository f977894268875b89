"""Settings of the reward server and of its client."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from editr1.config.base import Settings, Temperature
from editr1.config.llm import ServerConfig


class OpenAIEngineConfig(ServerConfig):
    """Settings of the ``openai`` engine, which generates traces on an OpenAI-compatible server."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8001/v1"
    """Root URL of the API, up to and including ``/v1``."""

    model: Annotated[str, Field(min_length=1)] = "verifier"
    """Name under which the OpenAI-compatible server serves the verifier."""

    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_ENGINE_API_KEY"
    """Name of the environment variable that contains the API key. If the variable is unset, requests are sent without a
    key."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum number of concurrent chat requests to the OpenAI-compatible server."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Deadline of one chat request, including its retries, in seconds."""


class ServeConfig(Settings):
    """Settings of the reward server: address, generation and request limits."""

    host: str = "127.0.0.1"
    """Address on which the server listens. ``*`` stands for all IPv4 and IPv6 addresses, which pods use."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port on which the server listens. With 0, the server chooses a free port."""

    engine: Literal["transformers", "openai"] = "transformers"
    """Engine that generates traces: "transformers" generates them in the server's process, and "openai" requests them
    from an OpenAI-compatible server such as vLLM."""

    openai: OpenAIEngineConfig = OpenAIEngineConfig()
    """Settings of the engine "openai"."""

    device: str = "auto"
    """Torch device of the engine "transformers". With "auto", it is a GPU if one is available."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights in the engine "transformers". With "auto", it is the data type of the checkpoint."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 1024
    """Maximum number of tokens per trace. The score is at the end of a trace, so it is missing if this limit is too
    small."""

    temperature: Temperature = 1.0
    """Sampling temperature for requests that require several traces and do not set a temperature: 0 or from 0.01 to
    2. If a request for a single trace sets no temperature, the trace is decoded greedily."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling threshold (top-p) of sampled traces."""

    min_parsed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Minimum fraction of an item's traces that must be parsed for the item to get a score, which is the mean over the
    parsed traces. At least one trace must be parsed. An item with fewer parsed traces fails with the cause "unparsed"."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Maximum number of traces per batch. A batch contains items (edits to score) with one or more traces each. It has
    at least one item, even if the traces of this item exceed the maximum."""

    batch_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """Time, in milliseconds, for which an idle engine waits for more requests before it starts a batch that is not
    full."""

    max_queued_items: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Maximum number of items (edits to score) that are queued or running. A request that would exceed this number gets
    HTTP status 429."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Maximum number of items (edits to score) per request."""

    max_traces: Annotated[int, Field(ge=1, le=256)] = 16
    """Maximum number of traces per item (edit to score)."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Maximum size of a request body, in bytes."""

    max_pixels: Annotated[int, Field(ge=1)] = 25_000_000
    """Maximum number of pixels per image. The image size is read from the image header, before the image is decoded."""

    deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Maximum deadline of a request, in seconds. A request that sets no deadline gets this deadline."""

    body_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Maximum time, in seconds, for a client to send a request body."""

    drain_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Maximum time, in seconds, to finish accepted requests after SIGTERM."""

    golden_must_parse: bool = True
    """Fail at startup if the trace of the golden sample cannot be parsed. The golden sample is a test edit that the
    server scores at startup. Set this to false for untrained models. A ``max_new_tokens`` that cuts off the traces on
    which the model was trained is then only a warning."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_request_items > self.max_queued_items:
            raise ValueError(
                f"max_request_items: {self.max_request_items}: larger than max_queued_items "
                f"({self.max_queued_items}), so a request of this size could never be queued; lower "
                "max_request_items or raise max_queued_items"
            )
        return self


class ClientConfig(Settings):
    """Settings of the reward client: load balancing, retries and timeouts."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 180.0
    """Maximum duration of one call of ``score``, including its retries, in seconds."""

    attempt_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 90.0
    """Timeout, in seconds, of one attempt to get a response from a replica."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0
    """Timeout of a connection attempt, in seconds."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Maximum number of failed attempts per request. HTTP status 429 (busy) does not count as a failed attempt, because
    the client waits and retries."""

    wait_unreachable: bool = True
    """If true, requests to a replica that is starting or draining are retried until the deadline, and these attempts do
    not count towards ``max_attempts``. Such a replica refuses connections or returns HTTP status 503. If false, these
    attempts count, so that a call fails early."""

    max_request_items: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Maximum number of items (edits to score) per request. A call of ``score`` with more items is split into several
    requests, which are distributed over the replicas."""

    max_request_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Maximum total size of the images in a request, in bytes. Larger requests are split. The limit must be below the
    server's ``max_body_bytes``."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Maximum number of concurrent requests, in total over all replicas."""

    resolve_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Interval, in seconds, at which host names are resolved again. In this way, the client finds new pods behind a
    headless Service."""

    backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """Delay, in seconds, after the first failure of a replica. The delay doubles with each further failure, up to 8
    s."""
