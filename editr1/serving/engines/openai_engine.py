"""The ``openai`` engine, which uses a verifier served by vLLM or any other OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from editr1.config.llm import EndpointConfig
from editr1.config.serve import OpenAIEngineConfig
from editr1.llm.client import ChatClient
from editr1.llm.errors import EndpointUnavailable, InvalidResponse, LlmError, RequestRefused
from editr1.llm.event_loop import new_runner
from editr1.llm.messages import Message, image_part, png_data_url
from editr1.llm.request import ChatRequest
from editr1.serving.engines.base import EngineError, EngineUnavailable, Generation, InvalidChat, Sampling
from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate

_NEUTRAL: Final = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that disable sampling parameters.

If a request omits a parameter, vLLM and SGLang use the value in the model's ``generation_config.json``. In both, the
value of top-k that disables it is -1, not 0.
"""


class OpenAIEngine:
    """Engine that sends each chat as one chat completion request, concurrently, with images as PNG ``data:`` URLs.

    ``template`` and ``model_digest`` must belong to the folder with which the server was started, because they cannot
    be queried through the protocol. Sampling parameters are sent even if they have no effect, so that the server does
    not use its own defaults.
    """

    def __init__(self, config: OpenAIEngineConfig, template: PromptTemplate, *, model_digest: str) -> None:
        self.model_digest = model_digest
        self.template = template
        self._model = config.model
        self._runner = new_runner()
        self._client = ChatClient(
            # The deadline includes retries, so that a request to a hanging server is not repeated.
            EndpointConfig(**config.model_dump(exclude={"model"}), deadline_seconds=config.timeout_seconds)
        )

    @classmethod
    def from_folder(cls, config: OpenAIEngineConfig, model: str | Path, *, model_digest: str | None = None) -> Self:
        """Create an engine with the prompt template and the digest of the verifier folder ``model``.

        Raises:
            ValueError: ``model`` is not a folder and no digest is given.
        """
        folder = Path(model)
        if not folder.is_dir() and model_digest is None:
            raise ValueError(
                f"model {str(model)!r} is not a folder, so its digest cannot be computed; pass model_digest"
            )
        if model_digest is None:
            from editr1.verifier.model import folder_digest

            model_digest = folder_digest(folder)
        return cls(config, PromptTemplate.load(folder), model_digest=model_digest)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        """Generate traces; see :meth:`Engine.generate`. If the server rejects a chat, only this chat fails."""
        answers = self._runner.run(self._generate(chats, sampling))
        if answers and all(isinstance(answer, EngineUnavailable) for answer in answers):
            raise EngineUnavailable(str(answers[0]))
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        urls = {id(image): png_data_url(image) for chat in chats for image in chat.images}
        return await asyncio.gather(*(self._complete(_messages(chat, urls), sampling) for chat in chats))

    async def _complete(self, messages: list[Message], sampling: Sampling) -> list[Generation] | EngineError:
        request = ChatRequest(
            model=self._model,
            messages=messages,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            n=sampling.num_traces,
            seed=sampling.seed,
            sampling=_NEUTRAL | {"top_p": sampling.top_p},
        )
        try:
            completion = await self._client.complete(request)
        except EndpointUnavailable as error:
            return EngineUnavailable(str(error))
        except InvalidResponse as error:
            return EngineError(str(error))
        except RequestRefused as error:
            return InvalidChat(str(error))
        except LlmError as error:
            return EngineError(str(error))
        # The protocol reports one token count for all choices, which is divided evenly among them.
        tokens, remainder = divmod(completion.completion_tokens, sampling.num_traces)
        return [
            Generation(
                text=answer.text,
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=tokens + (index < remainder),
                problem=answer.problem,
            )
            for index, answer in enumerate(completion.answers)
        ]


def _messages(chat: Chat, urls: Mapping[int, str]) -> list[Message]:
    """Return the chat's messages with each image placeholder replaced with the image's ``data:`` URL."""
    images = iter(chat.images)

    def part(value: Mapping[str, Any]) -> dict[str, Any]:
        return image_part(urls[id(next(images))]) if value["type"] == "image" else dict(value)

    return [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [part(value) for value in message["content"]],
        }
        for message in chat.messages
    ]
