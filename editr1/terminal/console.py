"""Consoles of the package rich that print text literally."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from editr1.terminal.text import no_color, visible

PLAIN_WIDTH = 1000
"""Maximum line width in characters if the output is not a terminal."""


def output_console() -> Console:
    """Return a console that prints literally to standard output.

    If the output is not a terminal, rich wraps table cells at 80 columns, so ``editr1 status | grep succeeded`` could
    find nothing. This console prints each table row on one line, unless the variable COLUMNS is set.
    """
    return _console(stderr=False)


def error_console() -> Console:
    """Return a console that prints literally to standard error. See :func:`output_console`."""
    return _console(stderr=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Join literal parts to one line for a console.

    A part is a string, or a tuple of a string and its rich style, such as ``("done", "green")``.
    """
    return Text.assemble(*(visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts))


class LiteralConsole(Console):
    """A console that prints strings literally: without markup, emoji codes or highlighting, and with escaped control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string, for example a table cell, to literal text. rich calls this for every string that it prints."""
        return super().render_str(visible(text), **options)


def _console(*, stderr: bool) -> Console:
    options: dict[str, Any] = {"color_system": None} if no_color() else {}
    if not (sys.stderr if stderr else sys.stdout).isatty() and "COLUMNS" not in os.environ:
        options["width"] = PLAIN_WIDTH
    return LiteralConsole(stderr=stderr, **options)
