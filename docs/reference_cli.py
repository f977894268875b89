"""Render the command line as Markdown, from the click commands that typer builds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main
from reference_schema import text


def command_line() -> str:
    """Return the Markdown of all commands with their help and parameters."""
    from editr1.cli.main import app

    root = typer.main.get_command(app)
    lines = [text(root.help or ""), "", "Every command has `--help`, which prints the same text as this page.", ""]
    for path, command in sorted(commands(root, "editr1"), key=lambda entry: entry[0]):
        lines += [f"## {path}", "", *_help(command), f"    {path} {' '.join(_usage(command))}".rstrip(), ""]
        lines += _parameters(command)
    return "\n".join(lines)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that is not a group, with its full name."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _help(command: Any) -> Iterator[str]:
    for paragraph in (command.help or "").split("\n\n"):
        words = " ".join(paragraph.split())
        if words.startswith("Example: "):
            yield from ("Example:", "", f"    {words.removeprefix('Example: ')}", "", "Usage:", "")
        else:
            yield from (text(words), "")
    if "Example: " not in (command.help or ""):
        yield from ("Usage:", "")


def _usage(command: Any) -> Iterator[str]:
    for parameter in _shown(command):
        if parameter.param_type_name == "argument":
            yield _name(parameter) if parameter.required else f"[{_name(parameter)}]"
        elif parameter.required:
            yield f"{parameter.opts[-1]} {_name(parameter)}"
    if any(parameter.param_type_name == "option" and not parameter.required for parameter in _shown(command)):
        yield "[OPTIONS]"


def _parameters(command: Any) -> list[str]:
    rows = []
    for parameter in _shown(command):
        argument = parameter.param_type_name == "argument"
        name = _name(parameter) if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
        default = parameter.default
        plain = default is not None and not callable(default) and default not in ("", (), [], False)
        shown = (
            "required" if parameter.required else f"`{default}`" if plain and "Sentinel" not in repr(default) else ""
        )
        variable = f" Environment variable: `{parameter.envvar}`." if parameter.envvar else ""
        rows.append(f"| `{name}` | {shown} | {text(getattr(parameter, 'help', None) or '')}{variable} |")
    return ["| parameter | default | description |", "|---|---|---|", *rows, ""] if rows else []


def _shown(command: Any) -> list[Any]:
    return [item for item in command.params if not getattr(item, "hidden", False) and item.name != "help"]


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()
