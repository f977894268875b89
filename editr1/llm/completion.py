"""Parse the response of a chat server: the answers, the reason why an answer is incomplete, and the error message."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from editr1.llm.reasoning import strip_reasoning


@dataclass(frozen=True)
class Answer:
    """One answer of a model."""

    text: str
    """Text of the answer without the model's reasoning; empty if the answer has no text."""
    problem: str = ""
    """Reason why the answer is empty, truncated or blocked, as text for an error message; empty for a complete answer."""
    truncated: bool = False
    """Whether the answer was cut off at the token limit (``finish_reason: length``)."""

    def explain(self, reason: str) -> str:
        """Return an error message for an answer that a parser rejected.

        It consists of the answer's ``problem``, if any, and the parser's ``reason``. If the answer has no text,
        ``reason`` is omitted.
        """
        return "; ".join(filter(None, (self.problem, reason if self.text or not self.problem else "")))


@dataclass(frozen=True)
class Completion:
    """The answers to one request, ordered by choice index, and the token counts that the server reported."""

    answers: list[Answer]
    prompt_tokens: int
    """Number of tokens in the prompt, including images; 0 if the server does not report them."""
    completion_tokens: int
    """Number of tokens in all answers together; 0 if the server does not report them."""


class NotACompletion(ValueError):
    """The body of a response is not a chat completion.

    ``status`` is the numeric code of the error object in the body, if any.
    """

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(problem)
        self.status = status


def read_completion(data: bytes, limit: str) -> Completion:
    """Parse the body of a response with status 200.

    ``limit`` describes the token limit for messages, such as "max_tokens = 1024". Choices without an index keep the
    order of the response. If the content is a list of parts, only text parts are used. Token counts that are missing
    or not numbers become 0.

    Raises:
        NotACompletion: The body is not JSON, is an error object, or has no list of choices.
    """
    try:
        reply = _load_json(data)
    except ValueError:
        raise NotACompletion(f"the response is not JSON: {quote_body(data) or '(empty)'}") from None
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list) or not reply["choices"]:
        raise _not_a_completion(reply, data)
    choices = [choice if isinstance(choice, dict) else {} for choice in reply["choices"]]
    indices = [choice.get("index") for choice in choices]
    if all(isinstance(index, int) for index in indices):
        choices = sorted(choices, key=lambda choice: choice["index"])
    usage = reply.get("usage")
    return Completion(
        [_read_answer(choice, limit) for choice in choices],
        _token_count(usage, "prompt_tokens"),
        _token_count(usage, "completion_tokens"),
    )


def quote_body(data: bytes) -> str:
    """Return the text of an error response as one line of at most 300 characters.

    This is the message of a JSON error object, the visible text of an HTML page, or the beginning of any other body.
    """
    try:
        return shorten(_error_words(_load_json(data)))
    except ValueError:
        text = data[:_MAX_BODY].decode("utf-8", "replace")
    if _HTML.search(text):
        visible = _INVISIBLE.split(text)[::2]  # Every second part is the content of a script or style element.
        text = html.unescape(_TAG.sub(" ", " ".join(visible)))
    return shorten(text)


def shorten(text: str) -> str:
    """Return ``text`` on one line of at most 300 characters, with control characters as escape sequences."""
    line = " ".join(text[:_MAX_BODY].split())
    line = line if len(line) <= _MAX_WORDS else f"{line[:_MAX_WORDS]} ..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _load_json(data: bytes) -> object:
    """Decode JSON, and raise ValueError if it is invalid.

    Lone surrogates and NaN, which ``orjson`` rejects, are accepted.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


def _not_a_completion(reply: object, data: bytes) -> NotACompletion:
    error = reply.get("error") if isinstance(reply, dict) else None
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        status = int(str(code)) if re.fullmatch(r"[45][0-9]{2}", str(code)) else None
        return NotACompletion(f"the response is an error: {quote_body(data)}", status)
    if isinstance(reply, dict) and reply.get("choices") == []:
        return NotACompletion(f"the response has no choices: {quote_body(data)}")
    return NotACompletion(f"the response is not a chat completion: {quote_body(data)}")


def _error_words(reply: object) -> str:
    """Return the message in a JSON error body. Servers nest it in ``error``, ``detail`` or ``errors``, or in a list."""
    value: object = reply
    for _ in range(4):
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, Mapping):
            break
        inner = next((value[key] for key in _ERROR_FIELDS if value.get(key)), None)
        if inner is None:
            break
        value = inner
    return value if isinstance(value, str) else json.dumps(value)


def _read_answer(choice: Mapping[str, Any], limit: str) -> Answer:
    reason = choice.get("finish_reason")
    message = choice.get("message")
    if choice.get("error"):
        return Answer("", f"the server reported an error: {shorten(_error_words(choice['error']))}")
    if not isinstance(message, Mapping):
        return Answer("", f"the choice has no message (finish_reason: {reason})")
    content = _valid_unicode(_content_text(message.get("content")))
    text = strip_reasoning(content)
    truncated = reason == "length"
    field = next((name for name in _REASONING_FIELDS if message.get(name)), "")
    if text.strip():
        problem = f"the answer was cut off at {limit}" if truncated else ""
        if reason == "content_filter":
            problem = "the answer was cut off by the server's content filter"
        return Answer(text, problem, truncated)
    return Answer("", _why_empty(message, reason, limit, field, bool(content.strip())), truncated)


def _why_empty(message: Mapping[str, Any], reason: object, limit: str, field: str, only_thought: bool) -> str:
    where = f"in {field}" if field else "in <think>"
    if reason == "length":
        thought = f"; it contains only reasoning, {where}" if field or only_thought else ""
        return f"the answer was cut off at {limit}{thought}"
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        return f"the model refused to answer: {shorten(refusal)}"
    if reason == "content_filter":
        return "the answer was blocked by the server's content filter (finish_reason: content_filter)"
    if field:
        words = _content_text(message[field])
        return (
            f"the answer is in the field {field}, and the field content is empty: {shorten(words)}; turn off the "
            "server's reasoning parser or the model's reasoning"
        )
    if only_thought:
        return "the answer contains only reasoning, in <think>; raise the token limit or turn off the model's reasoning"
    if message.get("tool_calls"):
        return "the answer is a tool call and has no text"
    return f"the answer is empty (finish_reason: {reason})"


def _content_text(content: object) -> str:
    """Return the text of a message's content, which is a string, a list of parts, or null."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    return ""


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"):
        text = part.get("text")
        return text if isinstance(text, str) else ""
    return ""


def _valid_unicode(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode. Gateways produce them when they truncate UTF-16 text."""
    return text.encode("utf-8", "replace").decode()


def _token_count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


_MAX_BODY: Final = 65_536
_MAX_WORDS: Final = 300
_ERROR_FIELDS: Final = ("error", "message", "detail", "errors", "msg", "error_description", "title")
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")
_HTML: Final = re.compile(r"<(?:!doctype|html|head|body|title|p|h1)\b", re.IGNORECASE)
_INVISIBLE: Final = re.compile(r"</?(?:script|style)\b[^<>]*>", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>")
