"""Checks of the command line that apply to every command."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

from editr1.terminal.text import is_utf8


class CommandApp(typer.Typer):
    """Typer application whose commands refuse arguments and options that no command can use.

    These are empty text, numbers that are not finite, and text that is not UTF-8. Empty text is usually a shell variable that is not set:
    ``--store "$STORE"`` must not select the default store.
    """

    def command(self, *arguments: Any, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Return a decorator that adds a command, as ``typer.Typer.command``."""
        return super().command(*arguments, **{"cls": _Command, **options})


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in order:
                for text in _texts(given.get(str(parameter.name))):
                    if fault := _fault(text):
                        raise typer.BadParameter(fault, ctx, cast(Any, parameter))
        left = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(str(parameter.name))
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(
                    f"{value} is not a finite number; give a number such as 60", ctx, cast(Any, parameter)
                )
        return left


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _fault(text: str) -> str | None:
    if not text:
        return "the value is empty; give a value, or leave the option out"
    if not is_utf8(text):
        return f"{text!r} is not valid UTF-8; rename the file or folder"
    return None
