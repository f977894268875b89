"""Commands for runs on a Kubernetes cluster, such as ``editr1 status``, ``editr1 logs`` and ``editr1 doctor``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.common import (
    DEFAULT_RUNS_DIR,
    NEGATIVE_RESULT,
    ClusterOption,
    NamespaceOption,
    RunsDirOption,
    StopFlag,
    StoreOption,
    cluster_overrides,
    fail,
    reporting,
)
from editr1.errors import ExitCode
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.editruns import EditRun
    from editr1.launch.kubernetes.overview import StageOverview

Run = Annotated[str, typer.Argument(help="Name of a run, or of the Helm release of a stage.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command()(status)
    app.command("list")(list_)
    for command in (logs, cancel, suspend, resume, wait, explain, doctor, bundle, timeline):
        app.command()(command)
    app.command("trace", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
        trace
    )


def status(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Show the state of each stage of a run on the cluster: progress, remaining time, restarts, and the reason for waiting.

    Example: editr1 status my-grpo -n editr1
    """
    from editr1.cli.editruns import show_run
    from editr1.launch.kubernetes.overview import jobs_of, overview

    with reporting():
        connection = _connect(cluster, namespace)
        edit_run = _edit_run(connection, run)
        stages = [] if edit_run else [overview(connection, job) for job in jobs_of(connection, run)]
    if edit_run:
        show_run(edit_run)
    else:
        _show_stages(stages)


def list_(cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """List all runs in the namespace, and all stages that have a job or a service there.

    Example: editr1 list -n editr1
    """
    from editr1.cli.editruns import show_runs
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.overview import overview

    with reporting():
        connection = _connect(cluster, namespace)
        runs = EditRuns(connection.api).all()
        stages = [overview(connection, job) for job in connection.api.jobs()]
    if runs:
        show_runs(runs)
    if not stages and not runs:
        echo(f"no runs or stages of Edit-R1 in namespace {connection.api.namespace}")
        return
    if stages:
        _show_stages(stages)


def logs(
    run: Run,
    follow: Annotated[
        bool,
        typer.Option(
            "-f",
            "--follow",
            help="Keep printing new lines, including those of later attempts, until the run has ended.",
        ),
    ] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="Print only the logs of this stage.")] = None,
    tail: Annotated[int, typer.Option("--tail", min=1, help="Number of last log lines to print per pod.")] = 200,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Print the logs of all ranks.

    Each line starts with the name of its pod. Logs of deleted pods come from the artifact store.

    Example: editr1 logs my-grpo -n editr1 -f
    """
    from editr1.cli.editruns import follow_logs, run_logs
    from editr1.launch.kubernetes.follow import live_logs, past_logs
    from editr1.launch.kubernetes.overview import jobs_of, live_files

    with reporting():
        connection = _connect(cluster, namespace)
        edit_run = _edit_run(connection, run)
        if edit_run:
            if follow:
                follow_logs(connection, run, stage, StopFlag())
                return
            for line in run_logs(connection, edit_run, stage, tail):
                echo(line)
            return
        jobs = [job for job in jobs_of(connection, run) if stage in (None, job.stage)]
        if follow:
            for line in live_logs(connection.api, [job.name for job in jobs], StopFlag()):
                echo(line)
            return
        for job in jobs:
            for line in past_logs(connection.api, job.name, live_files(connection, job), tail):
                echo(line)


def cancel(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Stop a run and remove its objects from the cluster. Artifacts and checkpoints remain in the artifact store.

    Example: editr1 cancel my-grpo -n editr1
    """
    from editr1.config.loader import ConfigError
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.overview import no_such_run
    from editr1.launch.kubernetes.release_objects import releases_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _edit_run(connection, run):
            EditRuns(connection.api).delete(run)
            echo(f"removed run {run} and all its objects on the cluster")
            return
        left = []
        for name in (names := releases_of(connection.api, connection.helm, run)):
            if connection.helm.uninstall(name, connection.api.target):
                echo(f"uninstalled {name}")
            else:
                left.append(name)
        if not names:
            raise no_such_run(connection.api, run)
        if left:
            raise ConfigError(
                f"not removed: {', '.join(left)}: no {connection.api.target.storage} contains a Helm release with"
                " that name; check helm_storage in the cluster settings, or delete these objects with the program that created them"
            )


def suspend(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Suspend a run. Its pods save a checkpoint and exit. To continue the run from that checkpoint, use editr1 resume.

    Example: editr1 suspend my-grpo -n editr1
    """
    _suspend(run, True, cluster, namespace)


def resume(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Resume a suspended run from its last checkpoint.

    Example: editr1 resume my-grpo -n editr1
    """
    _suspend(run, False, cluster, namespace)


def wait(
    run: Run,
    timeout: Annotated[
        float | None,
        typer.Option(help="Maximum time to wait, in seconds. After this time, the command exits with 124."),
    ] = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Wait until a run has ended. Exits with 0 if it succeeded, otherwise with the exit code of the failed stage.

    Example: editr1 wait my-grpo -n editr1 --timeout 86400
    """
    from editr1.cli.editruns import wait_for
    from editr1.cli.follow import follow_releases
    from editr1.launch.kubernetes.overview import jobs_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _edit_run(connection, run):
            raise typer.Exit(wait_for(connection, run, StopFlag(), timeout))
        names = [job.name for job in jobs_of(connection, run)]
        code = follow_releases(connection, names, StopFlag(), timeout)
    raise typer.Exit(code)


def explain(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Print one sentence per stage that describes what the stage is doing, or why it is not running.

    Example: editr1 explain my-grpo -n editr1
    """
    from editr1.cli.editruns import sentences
    from editr1.launch.kubernetes.overview import explain as sentence
    from editr1.launch.kubernetes.overview import jobs_of, overview

    with reporting():
        connection = _connect(cluster, namespace)
        edit_run = _edit_run(connection, run)
        if edit_run:
            for line in sentences(edit_run):
                echo(line)
            return
        for job in jobs_of(connection, run):
            echo(sentence(overview(connection, job)))


def doctor(cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Check what a run needs on the cluster: API, permissions, quota, GPUs, artifact store, KEDA, queue and collector.

    Exits with 1 if a required item is missing.

    Example: editr1 doctor -n editr1
    """
    from rich.table import Table

    from editr1.launch.kubernetes.doctor import examine
    from editr1.terminal.console import output_console, styled

    with reporting():
        connection = _connect(cluster, namespace)
        findings = list(examine(connection))
    console = output_console()
    table = Table("check", "result", "details")
    for found in findings:
        word, colour = ("ok", "green") if found.ok else ("missing", "red") if found.needed else ("absent", "yellow")
        table.add_row(found.check, styled((word, colour)), found.detail)
        if not console.is_terminal:
            echo(f"{word:8}{found.check}: {found.detail}")
    if console.is_terminal:
        console.print(table)
    if any(found.needed and not found.ok for found in findings):
        raise typer.Exit(NEGATIVE_RESULT)


def bundle(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Archive to write.  [default: RUN-bundle.tar.gz]")
    ] = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Write an archive for a bug report: the run's objects, events, logs and attempts, and the output of doctor.

    Secrets are redacted.

    Example: editr1 bundle my-grpo -n editr1
    """
    from editr1.launch.kubernetes.bundle import write_bundle

    target = out or Path(f"{run}-bundle.tar.gz")
    with reporting():
        names = write_bundle(_connect(cluster, namespace), run, target)
    echo(f"wrote {len(names)} files to {target}")


def timeline(
    run: Run,
    store: StoreOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    cluster: ClusterOption = None,
) -> None:
    """Draw the timeline of a run from the spans in its artifact store.

    This command needs neither a trace collector nor a cluster.

    Example: editr1 timeline quickstart
    """
    from editr1.config.loader import ConfigError
    from editr1.launch.kubernetes.connect import cluster_store, load_cluster
    from editr1.runs.find import open_existing_store, run_folder
    from editr1.runs.timeline import draw, gather_spans

    with reporting():
        folder = run_folder(runs_dir, run)
        if store is not None:
            bucket = store.startswith("s3:")
            opened = cluster_store(load_cluster(cluster), store) if bucket else open_existing_store(store)
        elif folder is not None:
            opened = open_existing_store(str(folder / "store"))
        else:
            try:
                opened = cluster_store(load_cluster(cluster))
            except ConfigError as error:
                raise ConfigError(
                    f"no run {run!r} in folder {runs_dir}, and no artifact store of a cluster is configured;"
                    f" give --store or --cluster ({error})"
                ) from None
        own = (
            runs_dir / run
        )  # A run that was renamed with --name has its own folder, but shares the store of the original run.
        spans = gather_spans(opened, run, (own if own.is_dir() else folder or own) / "spans.jsonl")
    if not spans:
        raise fail(f"run {run!r} has no spans in {opened.url}; check the name with: editr1 runs ls", ExitCode.CONFIG)
    from editr1.terminal.console import output_console

    draw(spans, output_console())


def trace() -> None:
    """Exit with an error that gives the new name of this command, ``timeline``.

    It was renamed because a trace is the text that the verifier writes about an edit.
    """
    raise fail("editr1 trace is now called: editr1 timeline", ExitCode.CONFIG)


def _connect(cluster: Path | None, namespace: str | None) -> Connection:
    from editr1.launch.kubernetes.connect import connect, load_cluster

    return connect(load_cluster(cluster, cluster_overrides(namespace)))


def _edit_run(connection: Connection, run: str) -> EditRun | None:
    from editr1.launch.kubernetes.editruns import EditRuns

    return EditRuns(connection.api).get(run)


def _suspend(run: str, hold: bool, cluster: Path | None, namespace: str | None) -> None:
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.overview import jobs_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _edit_run(connection, run):
            EditRuns(connection.api).suspend(run, hold)
            echo(f"{'suspended' if hold else 'resumed'} run {run}")
            return
        for job in jobs_of(connection, run):
            if job.service:
                echo(
                    f"{job.name} was not changed: a service cannot be suspended or resumed; change its number of replicas instead"
                )
                continue
            connection.api.suspend(job.name, hold)
            echo(f"{'suspended' if hold else 'resumed'} {job.name}")


def _show_stages(stages: list[StageOverview]) -> None:
    from rich.table import Table

    from editr1.durations import format_duration
    from editr1.terminal.console import output_console

    table = Table()
    for name in ("run", "stage", "release", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("progress", "time left", "restarts", "age"):
        table.add_column(name)
    for stage in stages:
        at = stage.progress
        shown = (
            f"{at.phase} {at.done}/{at.total}"
            if at
            else f"{stage.job.ready}/{stage.job.wanted} ready"
            if stage.job.service
            else ""
        )
        seconds_left = at.seconds_left if at and stage.state.phase == "running" else None
        left = "" if seconds_left is None else format_duration(seconds_left)
        restarts = stage.state.restarts + max(0, len(stage.attempts) - stage.job.wanted)
        table.add_row(
            stage.job.run,
            stage.job.stage,
            stage.job.name,
            str(stage.state.phase),
            shown,
            left,
            str(restarts),
            format_duration(time.time() - stage.job.created),
        )
    console = output_console()
    console.print(table)
    for stage in stages:
        if stage.state.reason:
            console.print(f"{stage.job.name}: {stage.state.reason}")
        if stage.note:
            console.print(
                f"{stage.job.name}: cannot read the progress from the artifact store: {stage.note}",
            )
