"""Build the chat messages that ask the verifier to score an edit. Training and serving use the same messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from editr1.data.types import Principle
from editr1.verifier.prompt import PromptTemplate


@dataclass(frozen=True)
class Chat:
    """Messages in transformers' chat format, and their images. ``images[k]`` fills the k-th ``{"type": "image"}`` part."""

    messages: list[dict[str, Any]]
    images: list[Image]


def build_chat(
    template: PromptTemplate, source: Image, edited: Image, instruction: str, principles: Sequence[Principle]
) -> Chat:
    """Build the chat for one edited image.

    It has a system message with the rules, and a user message with the source image, the instruction and principles,
    and the edited image. The edited image comes last, so that chats with the same source image and instruction share
    the longest possible prefix. Images are not resized here; the processor does that (see ``model.load_verifier``).
    """
    return Chat(messages=build_messages(template, instruction, principles), images=[source, edited])


def build_messages(template: PromptTemplate, instruction: str, principles: Sequence[Principle]) -> list[dict[str, Any]]:
    """Build the messages of :func:`build_chat`, with placeholders for the two images."""
    content: list[dict[str, Any]] = [
        *_label(template.source_label),
        {"type": "image"},
        {"type": "text", "text": template.text(instruction, principles)},
        *_label(template.edited_label),
        {"type": "image"},
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if template.rules:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": template.rules}]})
    return messages


def _label(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []
