"""``editr1 runs``: list runs, show the recorded state of a run, and repair damage in the store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.command import CommandApp
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

if TYPE_CHECKING:
    from editr1.artifacts import ArtifactStore

app = CommandApp(
    no_args_is_help=True,
    help="Runs: list them, show the state, attempts and outputs of a run, accept a partial result, or repair damage.",
)


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
    """Show the stages of a run with their state, attempts, metrics and outputs, and the process that executes the run.

    Example: editr1 runs show quickstart --json | jq .stages.grpo.metrics
    """
    from rich.table import Table

    from editr1.cli.view import format_value
    from editr1.runs.find import find_record_and_store
    from editr1.runs.holder import run_holder
    from editr1.terminal.console import output_console

    with reporting():
        found = find_record_and_store(runs_dir, open_store_option(store, cluster), name)
        if found is None:
            raise _not_found(name, store or cluster or runs_dir)
        record, opened = found
        holder = run_holder(opened, name)
    if as_json:
        shown = json.loads(record.model_dump_json())
        shown["holder"] = holder.model_dump(mode="json") if holder else None
        echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    console = output_console()
    console.print(
        f"{record.name}: {record.state}, seed {record.seed}, git revision {record.git_revision[:12] or 'unknown'}"
    )
    if holder is not None:
        echo(holder.sentence(time.time()))
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
            echo(stage.missing.sentence(stage.name, record.name))


@app.command()
def accept(
    name: Annotated[str, typer.Argument(help="Name of the run.")],
    stage: Annotated[str, typer.Argument(help="Name of the stage.")],
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    store: StoreOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Accept the partial result of a stage, so that the stage is not repeated for items that have no usable model answer.

    Example: editr1 runs accept my-run curate
    """
    from editr1.runs import partial
    from editr1.runs.find import find_record_and_store

    with reporting():
        found = find_record_and_store(runs_dir, open_store_option(store, cluster), name)
        if found is None:
            raise _not_found(name, store or cluster or runs_dir)
        record, opened = found
        echo(partial.accept(opened, record, stage).missing.sentence(stage, name))


def _not_found(name: str, where: object) -> typer.Exit:
    return fail(f"no run named {name!r} in {where}; list the runs with: editr1 runs ls", ExitCode.CONFIG)


@app.command()
def repair(
    name: Annotated[
        str | None, typer.Argument(help="Name of the run. Without a name, all runs and artifacts of --store are read.")
    ] = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    store: StoreOption = None,
    cluster: ClusterOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Move damaged objects aside. Without this option, nothing is changed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find damaged records, results, checkpoints and files of a run, and move them aside with --yes.

    Every file of the run's inputs, outputs and checkpoints is read. The command prints the path of each damaged
    object in the store, and the consequences of the damage. With --yes, damaged objects are moved to damaged/ in the
    same store, so that the next editr1 run repeats the work. Intact objects are never changed. Exits with 5 if a
    damaged object was found and not moved.

    Example: editr1 runs repair quickstart

    Example: editr1 runs repair quickstart --yes

    Example: editr1 runs repair --store s3://bucket/editr1 --json
    """
    import json
    from dataclasses import asdict

    from editr1.runs.repair import check_not_executed, find_damage, move_aside, runs_of

    with reporting():
        opened = _store_of(name, runs_dir, store, cluster)
        found = find_damage(opened, name)
        if yes and found:
            for run in [name] if name else runs_of(found):
                check_not_executed(opened, run)
        moved = {item.path: move_aside(opened, item) for item in found if yes and item.can_move}
    if as_json:
        echo(json.dumps([{**asdict(item), "moved_to": moved.get(item.path)} for item in found], indent=2))
    elif not found:
        echo(f"nothing is damaged in {opened.url}")
    else:
        for item in found:
            echo(f"{item.kind}: {item.path}\n  problem: {item.problem}\n  consequence: {item.consequence}")
            if item.can_move:
                to_do = f"moved to {moved[item.path]}" if yes else "would be moved to damaged/"
                echo(f"  repair: {to_do}")
        if not yes:
            again = " ".join(filter(None, ("editr1 runs repair", name, "--yes")))
            echo(f"damaged objects in {opened.url}: {len(found)}; move them aside with: {again} (and the same options)")
    if len(moved) < len(found):
        raise typer.Exit(ExitCode.INPUT)


def _store_of(name: str | None, runs_dir: Path, store: str | None, cluster: Path | None) -> ArtifactStore:
    """Open the store to repair: the store given by the options or, without these options, the store in the folder of the run."""
    from editr1.runs.find import open_existing_store, run_folder

    if (opened := open_store_option(store, cluster)) is not None:
        return opened
    if name is None:
        raise fail("give the name of a run, or a store with --store", ExitCode.CONFIG)
    folder = run_folder(runs_dir, name)
    if folder is None:
        raise fail(
            f"no run named {name!r} in {runs_dir}; list the runs with: editr1 runs ls, or give its store with --store",
            ExitCode.CONFIG,
        )
    return open_existing_store(str(folder / "store"))
