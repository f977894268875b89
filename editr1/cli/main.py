"""The command line interface.

Commands import their dependencies inside functions, so that ``editr1 --help`` is fast.
"""

from __future__ import annotations

import os
import sys

import typer

from editr1.cli import artifacts, check_reward, cluster, config, data, reproduce, run, runs, score, stages, submit
from editr1.cli.command import CommandApp
from editr1.cli.common import reporting
from editr1.terminal.text import echo

app = CommandApp(
    name="editr1",
    help="Edit-R1: train a model that verifies image edits, serve it as a reward model, and train image editors with it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
reproduce.register(app)
stages.register(app)
score.register(app)
check_reward.register(app)
submit.register(app)
cluster.register(app)
app.add_typer(data.app, name="data")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(runs.app, name="runs")
app.add_typer(config.app, name="config")


@app.command()
def version() -> None:
    """Print the version of Edit-R1.

    Example: editr1 version
    """
    from editr1 import __version__

    echo(__version__)


def main() -> None:
    """Run a command. The installed program ``editr1`` calls this function."""
    try:
        with reporting():
            try:
                app()
            finally:
                sys.stdout.flush()
    except typer.Exit as error:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # This prevents another attempt to write the remaining output at exit.
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
