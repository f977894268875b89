import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from editr1.cli.main import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Yield each command of ``group`` as a list of words, such as ``["data", "check"]``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif not command.hidden:
            yield [*path, name]


COMMANDS = list(commands(typer.main.get_command(app)))


def test_help_imports_no_slow_dependencies() -> None:
    heavy = ["torch", "transformers", "diffusers", "trl", "kubernetes", "kubeflow", "pyarrow", "numpy", "minio", "PIL"]
    code = (
        "import sys; sys.argv = ['editr1', '--help']\n"
        "from editr1.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Example: editr1 {command[0]}" in done.output
