"""The exception for invalid settings, and a function that shortens values for error messages."""

from __future__ import annotations

import reprlib
from typing import Final

from editr1.errors import Editr1Error, ExitCode

MAX_SHOWN: Final = 80
"""Maximum length of a value in a message."""


class ConfigError(Editr1Error, ValueError):
    """Exception for invalid settings.

    The message has one line per fault, with the file, the field, a description of the fault and the value.
    """

    exit_code = ExitCode.CONFIG


def short(value: object) -> str:
    """Return ``repr(value)`` with at most 80 characters, without computing the representation of the whole value."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python does not convert integers with more than 4300 digits to text.
        return f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_SHOWN
