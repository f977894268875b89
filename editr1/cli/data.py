"""``editr1 data``: check and show tables of training data, and import images."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.command import CommandApp
from editr1.cli.common import JsonOption, fail, reporting
from editr1.errors import ExitCode
from editr1.terminal.text import echo

app = CommandApp(no_args_is_help=True, help="Training data: check and show tables, and import images.")

MAX_SHOWN = 50
"""Maximum number of problems that are printed."""


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Table in .parquet or .jsonl format.")]) -> None:
    """Print the problems of each invalid row of a table: the field, its value, and the rule.

    Exits with 3 if there are problems.

    Example: editr1 data check runs/curation/outputs/rows/rows.parquet
    """
    from editr1.data.check import check_file
    from editr1.verifier.trace import parse_trace

    with reporting():
        problems = list(islice(check_file(file, parse=parse_trace), MAX_SHOWN + 1))
        for problem in problems[:MAX_SHOWN]:
            echo(f"{file}: {problem}")
    if problems:
        count = f"more than {MAX_SHOWN}" if len(problems) > MAX_SHOWN else str(len(problems))
        noun = "problem" if len(problems) == 1 else "problems"
        raise fail(f"{file}: {count} {noun}; correct the table", ExitCode.DATA)
    echo(f"{file}: all rows are valid")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with the images.")],
    table: Annotated[
        Path,
        typer.Option(
            help="CSV, JSON or Parquet table with columns source, instruction, edited, editor, and optionally preferred or rank."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder for the tables.")],
    max_side: Annotated[
        int | None,
        typer.Option(min=16, help="Maximum length of an image's longer side in pixels. Larger images are downscaled."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip invalid rows instead of rejecting the whole table.")
    ] = False,
) -> None:
    """Convert images and a table of edits to the input of the curate stage: tables of cases, edited images and pairs.

    Example: editr1 data import ./photos --table ./photos/edits.csv --out ./imported
    """
    from editr1.data.importer import format_problem, import_folder

    with reporting(out):
        report = import_folder(folder, table, out, max_side=max_side, skip_bad=skip_bad)
    for problem in report.problems[:MAX_SHOWN]:
        echo(format_problem(problem), err=True)
    for pair in report.dropped[:MAX_SHOWN] if report.files else []:
        echo(f"{table}: {pair}", err=True)
    if not report.files and not report.problems:
        raise fail(f"{table}: the table is empty; add at least one row", ExitCode.DATA)
    if not report.files:
        count = len(report.problems)
        raise fail(
            f"{table}: {count} invalid {'row' if count == 1 else 'rows'}, so nothing was written; "
            "correct the table or use --skip-bad",
            ExitCode.DATA,
        )
    echo(", ".join(f"{name} {count}" for name, count in report.counts.items()))
    for path in report.files:
        echo(path)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Parquet table.")],
    rows: Annotated[int, typer.Option(min=0, help="Number of rows to print.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Show a summary of a table and its first rows.

    Example: editr1 data show runs/curation/outputs/pairs/pairs.parquet --rows 1
    """
    import json
    from dataclasses import asdict

    from rich.table import Table

    from editr1.data.summary import summarise
    from editr1.terminal.console import output_console

    with reporting():
        summary = asdict(summarise(file, first=rows))
    if as_json:
        echo(json.dumps(summary, indent=2))
        return
    first = summary.pop("first")
    table = Table("field", "value", show_header=False)
    for name, value in summary.items():
        if value not in (None, {}):
            table.add_row(name.replace("_", " "), str(value))
    console = output_console()
    console.print(table)
    for number, row in enumerate(first, start=1):
        console.print(f"row {number}", style="bold")
        for name, text in row.items():
            console.print(f"  {name}: {text}")


@app.command("demo-photos")
def demo_photos(
    out: Annotated[Path, typer.Argument(help="Output folder for the images and table.csv.")],
    cases: Annotated[int, typer.Option(min=1, max=5, help="Number of edits per photograph.")] = 3,
) -> None:
    """Create example data for editr1 data import: the sample photographs of scikit-image and scikit-learn, with edits.

    Example: editr1 data demo-photos ./photos && editr1 data import ./photos --table ./photos/table.csv --out ./imported
    """
    from editr1.data.demo_photos import make_photos

    with reporting(out):
        echo(make_photos(out, cases_per_photo=cases))
