"""The protocol that inference engines implement: generate traces for a batch of chats with images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from editr1.config.base import Temperature
from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate


class Sampling(BaseModel):
    """Sampling settings of traces. Temperature 0 means greedy decoding. If ``seed`` is None, sampling is not seeded.

    An item has a score if at least the fraction ``min_parsed_fraction`` of its traces can be parsed, and at least one. This
    setting does not influence sampling.

    No other setting influences sampling: an engine does not apply a repetition penalty, top-k or other defaults from
    the checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Temperature = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    num_traces: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    min_parsed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5


class Generation(BaseModel):
    """One generated trace. ``prompt_tokens`` is the number of tokens of the chat, including its images.

    ``problem`` is the reason why the trace is truncated or empty; it is an empty string for a complete trace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    prompt_tokens: int
    completion_tokens: int
    problem: str = ""


class EngineError(Exception):
    """No traces could be generated for one chat. Other chats in the batch may have succeeded."""


class InvalidChat(EngineError):
    """A chat cannot be processed because of its content; for example, it is longer than the model's context.

    The engine itself may be healthy, but a retry of this chat would fail as well.
    """


class EngineUnavailable(EngineError):
    """The engine as a whole is unavailable, for example because its server is down; an immediate retry would fail."""


class Engine(Protocol):
    """Protocol of inference engines, which generate the traces of a verifier.

    The methods are called by one thread at a time.
    """

    model_digest: str
    """Digest of the verifier folder (``sha256:<hex>``). Every response contains it."""
    template: PromptTemplate
    """Prompt template that the weights were trained with."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        """Generate ``sampling.num_traces`` traces for each chat.

        The result has one entry per chat, in the order of ``chats``: the traces, or the error if the chat failed.

        Raises:
            EngineUnavailable: The engine cannot generate anything at the moment.
        """
        ...

    def close(self) -> None:
        """Release the resources of the engine, such as the model or network connections."""
        ...
