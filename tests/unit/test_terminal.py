"""Text from tables, models, servers and manifests is printed literally."""

from __future__ import annotations

import ast
import io
import json
import logging
from pathlib import Path

import pytest
from rich.table import Table

from editr1.telemetry.log import configure_logging
from editr1.terminal.console import LiteralConsole, styled
from editr1.terminal.text import echo, visible

PACKAGE = Path(__file__).parents[2] / "editr1"
HOSTILE = "flux [/v2] [red]x[/red] :smile: \x1b]0;owned\x07\x1b[2J\x9b2J \u202etxt \r|"
SHOWN = r"flux [/v2] [red]x[/red] :smile: \u001b]0;owned\u0007\u001b[2J\u009b2J \u202etxt \u000d|"


def test_control_characters_become_visible_and_other_text_stays() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("line 1\r\nline 2\ttabbed, Größe 東京 é 🙂") == "line 1\nline 2\ttabbed, Größe 東京 é 🙂"
    assert visible("half \ud83d of a pair").encode() == rb"half \ud83d of a pair"


def test_json_text_keeps_its_meaning() -> None:
    value = {"reasoning": HOSTILE}
    assert json.loads(visible(json.dumps(value, ensure_ascii=False))) == value


def test_echo_prints_literally(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE)
    echo(HOSTILE, err=True, fg="red")
    assert capsys.readouterr() == (SHOWN + "\n", SHOWN + "\n")


def test_console_prints_lines_cells_titles_and_styled_parts_literally() -> None:
    console = LiteralConsole(file=io.StringIO(), width=400, color_system=None, force_terminal=True)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(styled((HOSTILE, "green"), " ", HOSTILE))
    console.print(HOSTILE)
    console.print(table)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count(SHOWN) == 6
    assert "\x1b" not in output


def test_log_lines_are_literal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    logging.getLogger("editr1.test").warning("the server answered %s", HOSTILE)
    assert SHOWN in capsys.readouterr().err


@pytest.mark.parametrize("name", ["NO_COLOR", None])
def test_no_color_is_obeyed(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if name:
        monkeypatch.setenv(name, "1")
    printed: list[str] = []
    monkeypatch.setattr("typer.echo", lambda text, **_: printed.append(text))
    echo("error", fg="red")
    assert ("\x1b" in printed[0]) == (name is None)


def test_commands_print_only_through_this_package() -> None:
    allowed = {"labeller_server.py"}  # prints its own address
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "terminal" or path.name in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "typer.echo",
                "typer.secho",
                "Console",
            ):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "[/]" in node.value:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: markup")
    assert not found
