"""``editr1 run``: run all stages of a run file, on this machine or on a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import (
    ClusterOption,
    NamespaceOption,
    SetOption,
    StopFlag,
    StoreOption,
    cluster_overrides,
    command_line,
    reporting,
)

RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDITR1_RUNS_DIR", help="Folder that contains the runs.")]


class Backend(StrEnum):
    """Where the stages of a run are executed."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run")(run)


def run(
    file: Annotated[Path, typer.Argument(help="Run file (kind: EditRun).")],
    overrides: SetOption = None,
    runs_dir: RunsDir = Path("runs"),
    store: StoreOption = None,
    on: Annotated[Backend, typer.Option("--on", help="Where the stages are executed.")] = Backend.LOCAL,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit the run to the cluster's operator and exit without following it.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Validate the run file and start nothing.")] = False,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the report in a browser when the run has ended.")
    ] = False,
) -> None:
    """Run every stage of a run file that is not complete. Repeat the command to continue an interrupted run.

    Example: editr1 run manifests/samples/quickstart.yaml --set spec.seed=1 --set gcpo.learning_rate=5e-5
    --set spec.stages.sft.retries=5

    On a cluster: editr1 run manifests/samples/quickstart.yaml --on kubernetes -n editr1 --store s3://my-bucket/editr1

    If the cluster has the Edit-R1 operator, the operator runs the stages, even after this command has exited. Otherwise
    this command orchestrates them and has to stay running.
    """
    import os

    from editr1.cli.editruns import run_by_operator
    from editr1.cli.view import RunView
    from editr1.config.loader import ConfigError
    from editr1.config.store import store_at
    from editr1.launch.execute import execute
    from editr1.launch.kubernetes.connect import load_cluster, store_config
    from editr1.launch.local.processes import terminate_with_parent
    from editr1.launch.orchestrator import GRACE_SECONDS
    from editr1.runs.job import PARENT_VARIABLE
    from editr1.runs.report import write_report
    from editr1.runs.spec import load_run

    terminate_with_parent()
    with reporting():
        given = {"--detach": detach, "--cluster": cluster, "--namespace": namespace}
        if on is Backend.LOCAL and (unused := [name for name, value in given.items() if value]):
            raise ConfigError(
                f"{', '.join(unused)}: not supported for a local run; add --on kubernetes, or remove the option"
            )
        spec = load_run(file, overrides or [], os.environ)
        named = store or spec.spec.store
        target, opened = None, store_at(named) if named else None
        if check:
            typer.echo(f"{file}: {len(spec.spec.stages)} stages, valid")
            return
        folder = runs_dir / spec.metadata.name
        if on is Backend.KUBERNETES:
            target = load_cluster(cluster, cluster_overrides(namespace))
            opened = store_config(target, named)
        with RunView() as view:
            by_operator = None
            if target and opened:
                by_operator = run_by_operator(target, spec, store, opened, folder, view, detach)
            if by_operator is None:
                record, any_started = execute(
                    spec,
                    folder=folder,
                    command=command_line(),
                    observer=view,
                    should_stop=StopFlag(),
                    store=opened,
                    cluster=target,
                    wait=GRACE_SECONDS if PARENT_VARIABLE in os.environ else 0.0,
                )
            elif by_operator.record is None:
                raise typer.Exit(by_operator.code)
            else:
                record, any_started = by_operator.record, by_operator.any_started
        if not any_started:
            typer.echo(f"run {record.name}: all stages are up to date; nothing to do")
        report = write_report(record, folder, opened)
        if report is None:
            return
        report.print_table(view.console)
        typer.echo(f"report: {report.path}")
        if open_report:
            typer.launch(str(report.path))
