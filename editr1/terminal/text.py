"""Print text literally, with control characters escaped."""

from __future__ import annotations

import os
import re

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Pattern of the characters that are escaped.

These are control characters except tab and newline, marks that change the writing direction, and halves of surrogate
pairs.
"""


def visible(text: object) -> str:
    r"""Return ``text`` with each control character escaped as in JSON, such as \u001b.

    Tabs and line breaks are not escaped. JSON text keeps its meaning.
    """
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text).replace("\r\n", "\n"))


def is_utf8(text: str) -> bool:
    """Return False if ``text`` contains half of a surrogate pair, so that it cannot be encoded as UTF-8.

    Python uses them for the bytes of file names that are not UTF-8, and JSON can contain them.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def echo(text: object = "", *, err: bool = False, nl: bool = True, fg: str | None = None) -> None:
    """Print ``text`` literally to standard output, or to standard error if ``err`` is true.

    ``fg`` is a colour of ``typer.colors``. It is only used if the output is a terminal and NO_COLOR is not set.
    """
    import typer

    shown = visible(text)
    typer.echo(typer.style(shown, fg=fg) if fg and not no_color() else shown, err=err, nl=nl)


def no_color() -> bool:
    """Return True if the environment variable NO_COLOR disables colours and styles."""
    return bool(os.environ.get("NO_COLOR"))
