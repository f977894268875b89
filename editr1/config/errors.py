"""The error of invalid settings, and how a value is shown in a message."""

from __future__ import annotations

import reprlib
from typing import Final

from editr1.errors import Editr1Error, ExitCode

MAX_SHOWN: Final = 80
"""Maximum length of a value in a message."""


class ConfigError(Editr1Error, ValueError):
    """Error for invalid settings.

    The message has one line per fault. Each line names the file and the field, describes the fault, and shows the
    value.
    """

    exit_code = ExitCode.CONFIG


def short(value: object) -> str:
    """Return the representation of ``value`` with at most 80 characters, without building that of the whole value."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python does not write integers of more than 4300 digits
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_SHOWN
