"""Remove the reasoning that some models write in ``<think>`` tags before the actual answer."""

from __future__ import annotations

import re
from typing import Final


def strip_reasoning(text: str) -> str:
    """Return ``text`` without the reasoning that precedes the actual answer.

    The reasoning consists of one or more blocks ``<think>...</think>`` before the first JSON value. Incomplete blocks
    are removed as well. If only the closing tag exists, because the opening tag is part of the model's chat template,
    everything before it is removed. If only the opening tag exists, because the answer was truncated, everything
    after it is removed. If anything was removed, the result has no leading white space. The function runs in time
    linear in the length of ``text``.
    """
    start = 0  # The actual answer starts at this position or later.
    inside = False
    json_at = -1
    for tag in _TAG.finditer(text):
        closing = tag.group(1) == "/"
        if inside:
            if closing:
                start, inside = tag.end(), False
            continue
        if json_at < start:
            found = _JSON.search(text, start)
            json_at = found.start() if found else len(text)
        if closing:
            template_opened = start == 0 and not _JSON_FIRST.match(text)
            if json_at < tag.start() and not template_opened:
                break
            start = tag.end()
        elif json_at < tag.start():
            break
        else:
            inside = True
    if inside:
        return ""
    return text[start:].lstrip() if start else text


_TAG: Final = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_JSON: Final = re.compile(r"[\[{]")
_JSON_FIRST: Final = re.compile(r"\s*(?:[\[{]|```)")
