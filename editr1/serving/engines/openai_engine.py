"""The ``openai`` engine: the verifier behind any OpenAI-compatible server, vLLM first."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import openai
from openai.types.chat import ChatCompletion
from PIL.Image import Image

from editr1.config.serve import OpenAIEngineConfig
from editr1.data.images import encode_png
from editr1.serving.engines.base import EngineError, EngineUnavailable, Generation, Sampling
from editr1.verifier.chat import Chat
from editr1.verifier.prompt import PromptTemplate

_PAUSES_S = (0.5, 2.0)
"""Before each further try."""


class OpenAIEngine:
    """Sends each chat as one chat completion, pictures as PNG ``data:`` URLs, several at once.

    ``template`` and ``model_digest`` are those of the folder that the server was started with: the protocol has no way
    to ask. ``extra_body`` is added to every request (a server's own sampling fields).
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
        self._name = config.model
        self._extra = dict(extra_body or {})
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=os.environ.get(config.api_key_env) or "none",
            timeout=config.timeout_seconds,
            max_retries=0,  # the library's own retries would wait ``timeout_seconds`` again after each timeout
        )
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="editr1-openai")

    @classmethod
    def over(cls, config: OpenAIEngineConfig, model: str | Path, *, model_digest: str | None = None) -> Self:
        """An engine whose template and digest come from the verifier folder ``model``. Loads neither torch nor weights.

        Raises ``ValueError`` when ``model`` is no folder and no digest is given.
        """
        folder = Path(model)
        if not folder.is_dir() and model_digest is None:
            raise ValueError(f"model {str(model)!r}: not a folder; its digest cannot be computed and must be given")
        if model_digest is None:
            from editr1.verifier.model import folder_digest

            model_digest = folder_digest(folder)
        return cls(config, PromptTemplate.load(folder), model_digest=model_digest)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
        """See :class:`editr1.serving.engines.base.Engine`. A chat that the server refuses fails alone."""
        urls = {id(image): _data_url(image) for chat in chats for image in chat.images}
        jobs = [self._pool.submit(self._ask, _messages(chat, urls), sampling) for chat in chats]
        answers = [job.result() for job in jobs]
        if answers and all(isinstance(answer, EngineUnavailable) for answer in answers):
            raise EngineUnavailable(str(answers[0]))
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _answer(self, messages: list[Any], sampling: Sampling) -> ChatCompletion:
        for pause in _PAUSES_S:
            try:
                return self._complete(messages, sampling)
            except openai.OpenAIError as error:
                if not _passes(error):
                    raise
                time.sleep(pause)
        return self._complete(messages, sampling)

    def _complete(self, messages: list[Any], sampling: Sampling) -> ChatCompletion:
        return self._client.chat.completions.create(
            model=self._name,
            messages=messages,
            n=sampling.num_traces,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed if sampling.seed is not None else openai.omit,
            extra_body=self._extra or None,
        )

    def _ask(self, messages: list[Any], sampling: Sampling) -> list[Generation] | EngineError:
        try:
            answer = self._answer(messages, sampling)
        except openai.APIConnectionError as error:  # timeouts are a kind of it
            return EngineUnavailable(f"{self._client.base_url}: {type(error).__name__}: {error}")
        except openai.APIStatusError as error:
            text = f"{self._client.base_url}: {error.status_code}: {error.message}"
            return EngineUnavailable(text) if error.status_code >= 500 else EngineError(text)
        except openai.OpenAIError as error:
            return EngineError(f"{self._client.base_url}: {type(error).__name__}: {error}")
        choices = sorted(answer.choices or [], key=lambda choice: choice.index)
        if len(choices) != sampling.num_traces:
            return EngineError(
                f"{self._client.base_url}: {len(choices)} choices where {sampling.num_traces} were asked for"
            )
        read = answer.usage.prompt_tokens if answer.usage else 0
        written = answer.usage.completion_tokens if answer.usage else 0
        # The protocol counts all choices together.
        each, rest = divmod(written, sampling.num_traces)
        return [
            Generation(
                text=choice.message.content or "", prompt_tokens=read, completion_tokens=each + (position < rest)
            )
            for position, choice in enumerate(choices)
        ]


def _passes(error: openai.OpenAIError) -> bool:
    """Whether the server may answer in a moment; one that let the time pass is not asked to take as long again."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code == 429 or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def _messages(chat: Chat, urls: Mapping[int, str]) -> list[Any]:
    images = iter(chat.images)

    def part(value: Mapping[str, Any]) -> dict[str, Any]:
        if value["type"] == "image":
            return {"type": "image_url", "image_url": {"url": urls[id(next(images))]}}
        return dict(value)

    return [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [part(value) for value in message["content"]],
        }
        for message in chat.messages
    ]


def _data_url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode('ascii')}"
