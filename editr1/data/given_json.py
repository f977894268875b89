"""Parse JSON that people wrote: rows of tables, principles, and items to score."""

from __future__ import annotations

import json
from typing import Any


def parse_given_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Bytes must be UTF-8, with or without a byte order mark.

    Unlike ``json.loads``, a key that an object contains twice is refused, because one of its values would be ignored.

    Raises:
        UnicodeDecodeError: The bytes are not UTF-8.
        json.JSONDecodeError: The text is not JSON.
        ValueError: A key appears twice in an object, the text is nested too deeply, or a number has too many digits.
    """
    decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        return json.loads(decoded, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated[:80]!r} appears twice in one object; remove one of the two")
    return found
