"""A chat completion request and its encoding as JSON for a given server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from editr1.config.llm import ServerConfig
from editr1.llm.messages import Message


@dataclass(frozen=True)
class ChatRequest:
    """A request for ``n`` answers to ``messages``. ``sampling`` holds further parameters, such as ``top_p``."""

    model: str
    messages: Sequence[Message]
    max_tokens: int
    temperature: float
    n: int = 1
    seed: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)

    def encode(self, config: ServerConfig) -> bytes:
        """Return the JSON body of the request for the server that ``config`` describes.

        ``n`` is only included if it exceeds 1.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages,
            "temperature": self.temperature,
            config.length_parameter: self.max_tokens,
        }
        if self.n > 1:
            body["n"] = self.n
        if self.seed is not None:
            body["seed"] = self.seed
        body |= self.sampling
        for name in config.omit_parameters:
            body.pop(config.length_parameter if name == "max_tokens" else name, None)
        return orjson.dumps(body | config.extra_body)
