"""Extract JSON values from the answers of models. Other text or Markdown code fences may surround the values."""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal


class UnreadableAnswer(ValueError):
    """The answer of a model cannot be parsed; the message gives the reason."""


def strip_code_fences(text: str) -> str:
    """Return ``text`` without the lines that open or close a Markdown code fence."""
    return _FENCE.sub("", text).strip() if "```" in text else text


def find_json(text: str, opening: Literal["[", "{"]) -> Any:
    """Decode the JSON value that starts at the first bracket ``opening`` in ``text``. Text after the value is ignored.

    Raises:
        UnreadableAnswer: ``text`` does not contain this bracket, or no valid JSON starts there.
    """
    text = strip_code_fences(text)
    start = text.find(opening)
    if start < 0:
        raise UnreadableAnswer(f"the answer contains no {opening!r}: {text[:80]!r}")
    try:
        return _DECODER.raw_decode(text, start)[0]
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"the answer contains no valid JSON: {error}") from None


_FENCE: Final = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
_DECODER: Final = json.JSONDecoder()
