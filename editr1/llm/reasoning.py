"""Remove the reasoning that some models write into the answer, in ``<think>`` tags before the answer proper."""

from __future__ import annotations

import re
from typing import Final


def strip_reasoning(text: str) -> str:
    """Return ``text`` without the reasoning that precedes the answer proper.

    The reasoning is in one or more blocks ``<think>...</think>`` before the first JSON value. Two kinds of incomplete
    blocks are removed, too: if only the closing tag is there, because the chat template of the model contains the
    opening tag, everything before it; and if only the opening tag is there, because the answer was truncated,
    everything after it. The result has no leading white space if anything was removed. The time is linear in the length
    of ``text``.
    """
    start = 0  # the answer proper starts here or later
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
