"""The ``openai`` engine: a verifier behind vLLM or any other OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from editr1.config.llm import EndpointConfig
from editr1.config.serve import OpenAIEngineConfig
from editr1.llm.client import ChatClient
from editr1.llm.errors import EndpointUnavailable, LlmError, RequestRefused
from editr1.llm.event_loop import new_runner
from editr1.llm.messages import Message, image_part, png_data_url
from editr1.serving.engines.base import EngineError, EngineUnavailable, Generation, InvalidChat, Sampling
from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate

_MAX_RETRIES = 2


class OpenAIEngine:
    """Engine that sends each chat as one chat completion request, concurrently, with images as PNG ``data:`` URLs.

    ``template`` and ``model_digest`` must be those of the folder that the server was started with, because the protocol
    offers no way to query them. ``extra_body`` is added to every request, for sampling fields specific to the server.
    """

    def __init__(
        self,
        config: OpenAIEngineConfig,
        template: PromptTemplate,
        *,
        model_digest: str,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_digest = model_digest
        self.template = template
        self._model = config.model
        self._extra = dict(extra_body or {})
        self._runner = new_runner()
        self._client = ChatClient(
            EndpointConfig(
                base_url=config.base_url,
                api_key_env=config.api_key_env,
                concurrency=config.concurrency,
                max_retries=_MAX_RETRIES,
                timeout_seconds=config.timeout_seconds,
                # The deadline includes retries, so that a request to a hanging server is not repeated.
                deadline_seconds=config.timeout_seconds,
            )
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
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "n": sampling.num_traces,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        try:
            completion = await self._client.complete(body | self._extra)
        except EndpointUnavailable as error:
            return EngineUnavailable(str(error))
        except RequestRefused as error:
            return InvalidChat(str(error))
        except LlmError as error:
            return EngineError(str(error))
        # The protocol reports one token count for all choices; it is divided evenly among them.
        tokens, remainder = divmod(completion.completion_tokens, sampling.num_traces)
        return [
            Generation(
                text=text, prompt_tokens=completion.prompt_tokens, completion_tokens=tokens + (index < remainder)
            )
            for index, text in enumerate(completion.texts)
        ]


def _messages(chat: Chat, urls: Mapping[int, str]) -> list[Message]:
    """Return the chat's messages with each image placeholder replaced by the image's ``data:`` URL."""
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
