"""Extract JSON values from model answers, in which other text or Markdown code fences may surround the values.

An answer is arbitrary text. For any answer, the functions return a value or raise :class:`UnreadableAnswer`, and they
run in time linear in the length of the answer.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal, NoReturn


class UnreadableAnswer(ValueError):
    """A model answer cannot be parsed. The message gives the reason."""


def strip_code_fences(text: str) -> str:
    """Return ``text`` without the lines that open or close a Markdown code fence."""
    return _FENCE.sub("", text).strip() if "```" in text else text


def find_json(text: str, opening: Literal["[", "{"]) -> Any:
    """Decode the JSON value that starts at the first occurrence of the bracket ``opening`` in ``text``.

    Text after the value is ignored.

    Raises:
        UnreadableAnswer: ``text`` does not contain this bracket, or no valid JSON starts there.
    """
    text = strip_code_fences(text)
    start = text.find(opening)
    if start < 0:
        raise UnreadableAnswer(f"the answer contains no {opening!r}: {text[:80]!r}")
    return _decode(text, start)[0]


def decode_json(text: str) -> Any:
    """Decode ``text``, which must be one JSON value. Only white space may surround it.

    Raises:
        UnreadableAnswer: ``text`` is not one JSON value.
    """
    text = text.strip()
    value, end = _decode(text, 0)
    if end < len(text):
        raise UnreadableAnswer(f"the answer contains text after the JSON value: {text[end : end + 80]!r}")
    return value


def shown(value: object, limit: int = 80) -> str:
    """Return the start of ``repr(value)`` for an error message. ``value`` is a decoded JSON value of any depth."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _decode(text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, start)
        if _SURROGATE.search(text, start, end):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableAnswer("the answer contains a lone surrogate, which is not valid Unicode") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer contains no valid JSON: {error}") from None
    return value, end


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


_FENCE: Final = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
