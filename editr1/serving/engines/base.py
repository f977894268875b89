"""The engine protocol: a batch of chats with pictures and sampling settings in, texts with token counts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate


class Sampling(BaseModel):
    """How traces are drawn. ``temperature`` 0 is greedy; ``seed`` None leaves the draw to the engine's own state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    num_traces: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Generation(BaseModel):
    """One trace as written. ``prompt_tokens`` counts the chat, pictures included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    prompt_tokens: int
    completion_tokens: int


class EngineError(Exception):
    """One chat could not be answered; the others of its batch may have been."""


class EngineUnavailable(EngineError):
    """The engine as a whole does not answer (its server is down or late); trying the same again at once is no use."""


class Engine(Protocol):
    """Generates traces. Called by one thread at a time."""

    model_digest: str
    """Names the weights, ``sha256:<hex>``; travels with every answer."""
    template: PromptTemplate
    """The prompt that these weights were trained with."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        """``sampling.num_traces`` traces a chat, in the order of ``chats``; a chat that failed alone gets its error instead.

        Raises:
            EngineUnavailable: nothing can be generated at the moment.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...
