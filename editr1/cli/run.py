"""``editr1 run``: run all stages of a run file, on this machine or on a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.common import (
    DEFAULT_RUNS_DIR,
    ClusterOption,
    NameOption,
    NamespaceOption,
    ReplaceOption,
    RunFileArgument,
    RunsDirOption,
    SetOption,
    StopFlag,
    StoreOption,
    cluster_overrides,
    command_line,
    reporting,
)
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from rich.console import Console

    from editr1.artifacts import ArtifactStore
    from editr1.cli.editruns import OperatorOptions
    from editr1.cli.view import RunView
    from editr1.config.cluster import ClusterConfig
    from editr1.config.store import StoreConfig
    from editr1.runs.record import RunRecord
    from editr1.runs.spec import RunSpec


class Backend(StrEnum):
    """Values of the option --on, which determines where the stages of a run are executed."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("run")(run)


def run(
    file: RunFileArgument,
    overrides: SetOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    store: StoreOption = None,
    on: Annotated[
        Backend, typer.Option("--on", help="Where the stages are executed: on this machine or on a cluster.")
    ] = Backend.LOCAL,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Submit the run to the operator in the cluster and exit without following it."),
    ] = False,
    no_operator: Annotated[
        bool,
        typer.Option(
            "--no-operator", help="Start the stages from this machine, even if the cluster has the Edit-R1 operator."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only check the run file, its settings, its inputs and its artifact store. Nothing is written.",
        ),
    ] = False,
    name: NameOption = None,
    replace: ReplaceOption = False,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the report in a browser when the run has ended.")
    ] = False,
) -> None:
    """Run the stages of a run file. Complete stages are skipped, so repeat the command to continue an interrupted run.

    Example: editr1 run manifests/samples/quickstart.yaml --set spec.seed=1 --set gcpo.learning_rate=5e-5
    --set spec.stages.sft.retries=5

    On a cluster: editr1 run manifests/samples/quickstart.yaml --on kubernetes -n editr1 --store s3://my-bucket/editr1

    If the cluster has the Edit-R1 operator, the operator starts the stages, even after this command has exited.
    Otherwise, or with --no-operator, this command starts the stages and has to keep running until the run has ended.

    A run whose settings or inputs differ from those recorded under its name is rejected. In this case, choose another
    --name, or use --replace.
    """
    import os

    from editr1.cli.editruns import OperatorOptions
    from editr1.cli.view import RunView
    from editr1.config.store import store_at
    from editr1.launch.kubernetes.connect import load_cluster, store_config
    from editr1.launch.kubernetes.values import check_release_names
    from editr1.launch.local.processes import end_with_parent
    from editr1.runs.check import check_inputs, check_store
    from editr1.runs.spec import load_run

    with reporting():
        end_with_parent()
        if on is Backend.LOCAL:
            _reject_cluster_options(
                {"--detach": detach, "--no-operator": no_operator, "--cluster": cluster, "--namespace": namespace}
            )
        spec = _with_store(load_run(file, overrides or [], os.environ), store)
        renamed = _with_name(spec, name) if name else spec
        target, opened = None, store_at(spec.spec.store) if spec.spec.store else None
        if on is Backend.KUBERNETES:
            target = load_cluster(
                cluster, [*cluster_overrides(namespace), *(["use_operator=false"] if no_operator else [])]
            )
            opened = store_config(target, spec.spec.store)
            where = "--name" if name else str(file)
            check_release_names(renamed.metadata.name, [stage.name for stage in spec.spec.stages], where)
        checked: ArtifactStore | None = None
        notes: list[str] = []
        local = (runs_dir / spec.metadata.name / "store").resolve().as_uri()
        if check:
            checked, notes = check_store(opened or store_at(local), f"{file}: spec.store")
        for note in [*notes, *check_inputs(spec, checked, str(file))]:
            echo(note)
        if check:
            count = len(spec.spec.stages)
            echo(f"{file}: the run file is valid and has {count} {'stage' if count == 1 else 'stages'}")
            return
        options = OperatorOptions(detach, replace, (spec.metadata.name,) if name else ())
        if name:
            # If the run file has no store, the renamed run shares the store of the original run, so that finished
            # stages can be reused.
            opened = opened or store_at(local)
            spec = renamed
        folder = runs_dir / spec.metadata.name
        with RunView() as view:
            record, any_started = _execute(spec, folder, opened, target, view, options)
        if not any_started:
            echo(f"run {record.name}: all stages are up to date; nothing to do")
        for stage in record.stages.values():
            if stage.missing:
                echo(stage.missing.sentence(stage.name, record.name))
        _show_report(record, folder, opened, view.console, open_report)


def _reject_cluster_options(given: dict[str, object]) -> None:
    """Raise ConfigError if the command of a local run has an option that only applies to runs on a cluster."""
    from editr1.config.loader import ConfigError

    if unused := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"{', '.join(unused)}: not supported for a local run; add --on kubernetes, or remove the option"
        )


def _with_name(spec: RunSpec, name: str) -> RunSpec:
    """Return ``spec`` with the given name. Raises ConfigError if it is not a valid name for a run."""
    from editr1.config.loader import validate
    from editr1.runs.spec import Metadata

    metadata = validate(Metadata, spec.metadata.model_dump() | {"name": name}, where="--name")
    return spec.model_copy(update={"metadata": metadata})


def _with_store(spec: RunSpec, store: str | None) -> RunSpec:
    """Return ``spec`` with its artifact store replaced with the store from the command line, if one is given."""
    if store is None:
        return spec
    return spec.model_copy(update={"spec": spec.spec.model_copy(update={"store": store})})


def _execute(
    spec: RunSpec,
    folder: Path,
    store: StoreConfig | None,
    cluster: ClusterConfig | None,
    view: RunView,
    options: OperatorOptions,
) -> tuple[RunRecord, bool]:
    """Execute a run, with the operator if the cluster has one.

    Returns the record of the run, and whether a stage was started.

    Raises:
        typer.Exit: the operator executes the run, and this command stopped following it.
    """
    import os

    from editr1.cli.editruns import run_by_operator
    from editr1.launch.execute import execute
    from editr1.launch.orchestrator import GRACE_SECONDS
    from editr1.runs.job import PARENT_VARIABLE

    by_operator = run_by_operator(cluster, spec, store, folder, view, options) if cluster and store else None
    if by_operator is None:
        return execute(
            spec,
            folder=folder,
            command=command_line(),
            observer=view,
            should_stop=StopFlag(),
            store=store,
            cluster=cluster,
            wait=GRACE_SECONDS if PARENT_VARIABLE in os.environ else 0.0,
            replace=options.replace,
            reuse=options.reuse,
        )
    if by_operator.record is None:
        raise typer.Exit(by_operator.code)
    return by_operator.record, by_operator.any_started


def _show_report(record: RunRecord, folder: Path, store: StoreConfig | None, console: Console, browser: bool) -> None:
    """Write the report of a run, print its table and its path, and open it in a browser if requested."""
    from editr1.runs.report import write_report

    report = write_report(record, folder, store)
    if report is None:
        return
    report.print_table(console)
    echo(f"report: {report.path}")
    if browser:
        typer.launch(str(report.path))
