"""``editr1 runs``: list runs, and show the recorded state of a run."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from editr1.cli.common import (
    DEFAULT_RUNS_DIR,
    ClusterOption,
    JsonOption,
    RunsDirOption,
    StoreOption,
    fail,
    open_store_option,
    reporting,
)
from editr1.durations import format_minute
from editr1.errors import ExitCode
from editr1.terminal.text import echo

app = typer.Typer(no_args_is_help=True, help="Runs: list them, or show the state, attempts and outputs of a run.")


@app.command("ls")
def list_runs(
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR, store: StoreOption = None, cluster: ClusterOption = None
) -> None:
    """List the runs in the artifact store --store, or in the store of the settings --cluster.

    Without these options, list the local runs in the folder --runs-dir.

    Example: editr1 runs ls
    """
    from rich.table import Table

    from editr1.runs.find import find_records
    from editr1.terminal.console import output_console

    with reporting():
        records = find_records(runs_dir, open_store_option(store, cluster))
    if not records:
        echo(f"no runs in {store or cluster or runs_dir}")
        return
    table = Table("name", "state", "seed", "stages done", "started", "minutes")
    for record in records:
        done = sum(stage.state == "done" for stage in record.stages.values())
        minutes = f"{((record.ended or time.time()) - record.created) / 60:.1f}"
        table.add_row(
            record.name,
            str(record.state),
            str(record.seed),
            f"{done}/{len(record.stages)}",
            format_minute(record.created),
            minutes,
        )
    output_console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the run.")],
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the stages of a run with their state, attempts, metrics and outputs.

    Example: editr1 runs show quickstart --json | jq .stages.grpo.metrics
    """
    from rich.table import Table

    from editr1.cli.view import format_value
    from editr1.runs.find import find_record
    from editr1.terminal.console import output_console

    with reporting():
        record = find_record(runs_dir, open_store_option(store, cluster), name)
    if record is None:
        raise fail(
            f"no run named {name!r} in {store or cluster or runs_dir}; list the runs with: editr1 runs ls",
            ExitCode.CONFIG,
        )
    if as_json:
        echo(record.model_dump_json(indent=2))
        return
    console = output_console()
    console.print(
        f"{record.name}: {record.state}, seed {record.seed}, git revision {record.git_revision[:12] or 'unknown'}"
    )
    table = Table("stage", "state", "attempts", "seconds", "metrics", "outputs")
    for stage in record.stages.values():
        seconds = sum((a.ended or time.time()) - a.started for a in stage.attempts)
        metrics = "\n".join(f"{key} {format_value(value)}" for key, value in stage.metrics.items())
        outputs = "\n".join(f"{key} {digest[:19]}" for key, digest in stage.outputs.items())
        table.add_row(stage.name, str(stage.state), str(len(stage.attempts)), f"{seconds:.0f}", metrics, outputs)
    console.print(table)
    for stage in record.stages.values():
        if stage.reason:
            console.print(f"{stage.name}: {stage.reason}")
        if stage.missing:
            console.print(stage.missing.sentence(stage.name), soft_wrap=True)
