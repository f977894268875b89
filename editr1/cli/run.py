"""``editr1 run``: a whole run file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import SetOption, StopFlag, StoreOption, command_line, reporting

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDITR1_RUNS_DIR", help="Folder that holds the runs.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    file: Annotated[Path, typer.Argument(help="Run file (kind: EditRun).")],
    overrides: SetOption = None,
    runs_dir: RunsDir = Path("runs"),
    store: StoreOption = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the file; start nothing.")] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
) -> None:
    """Run every stage of a run file; run it again to continue, or to be told that nothing is left to do.

    Example: editr1 run manifests/samples/quickstart.yaml --set spec.seed=1 --set gcpo.learning_rate=5e-5
    """
    import os

    from editr1.cli.view import RunView
    from editr1.config.store import StoreConfig
    from editr1.runs.execute import execute
    from editr1.runs.report import write_report
    from editr1.runs.spec import load_run

    with reporting():
        spec = load_run(file, overrides or [], os.environ)
        if check:
            typer.echo(f"{file}: {len(spec.spec.stages)} stages, nothing to complain about")
            return
        folder = runs_dir / spec.metadata.name
        with RunView() as view:
            record, worked = execute(
                spec,
                folder=folder,
                command=command_line(),
                observer=view,
                should_stop=StopFlag(),
                store=StoreConfig(url=store) if store else None,
            )
        if not worked:
            typer.echo(f"run {record.name}: every stage already stands; nothing to do")
        report = write_report(record, folder, store)
        if report is None:
            return
        report.print_table(view.console)
        typer.echo(f"report: {report.path}")
        if open_report:
            typer.launch(str(report.path))
