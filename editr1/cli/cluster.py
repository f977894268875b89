"""Look at runs on a cluster, and act on them: status, list, logs, cancel, suspend, resume, wait, explain, doctor, bundle, trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.common import ClusterOption, NamespaceOption, StopFlag, StoreOption, cluster_overrides, fail, reporting

if TYPE_CHECKING:
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.editruns import EditRun
    from editr1.launch.kubernetes.overview import StageOverview

Run = Annotated[str, typer.Argument(help="Run, or release.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(status)
    app.command("list")(list_)
    for command in (logs, cancel, suspend, resume, wait, explain, doctor, bundle, trace):
        app.command()(command)


def status(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Show a run's stages on the cluster: state, progress, time left, restarts, and why one waits.

    Example: editr1 status my-grpo -n editr1
    """
    from editr1.cli.editruns import show_run
    from editr1.launch.kubernetes.overview import jobs_of, overview

    with reporting():
        connection = _connect(cluster, namespace)
        whole = _whole(connection, run)
        stages = [] if whole else [overview(connection, job) for job in jobs_of(connection, run)]
    if whole:
        show_run(whole)
    else:
        _table(stages)


def list_(cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """List every run and stage in the namespace.

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
        typer.echo(f"nothing of Edit-R1 in namespace {connection.api.namespace}")
        return
    if stages:
        _table(stages)


def logs(
    run: Run,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the run is over; survives restarts.")
    ] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    tail: Annotated[int, typer.Option("--tail", min=1, help="Last lines of each pod.")] = 200,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Print the logs of all ranks, each line with its pod; of pods that are gone, the last lines that the bucket keeps.

    Example: editr1 logs my-grpo -n editr1 -f
    """
    from editr1.cli.editruns import follow_logs, run_logs
    from editr1.launch.kubernetes.follow import live_logs, past_logs
    from editr1.launch.kubernetes.overview import jobs_of, live_files

    with reporting():
        connection = _connect(cluster, namespace)
        whole = _whole(connection, run)
        if whole and follow:
            follow_logs(connection, run, stage, StopFlag())
        for line in run_logs(connection, whole, stage, tail) if whole and not follow else ():
            typer.echo(line)
        if whole:
            return
        jobs = [job for job in jobs_of(connection, run) if stage in (None, job.stage)]
        if follow:
            for line in live_logs(connection.api, [job.name for job in jobs], StopFlag()):
                typer.echo(line)
            return
        for job in jobs:
            for line in past_logs(connection.api, job.name, live_files(connection, job), tail):
                typer.echo(line)


def cancel(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Stop a run and remove its releases from the cluster. Its artifacts and checkpoints stay in the bucket.

    Example: editr1 cancel my-grpo -n editr1
    """
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.overview import jobs_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _whole(connection, run):
            EditRuns(connection.api).delete(run)
            typer.echo(f"removed run {run} and all that it had started")
            return
        for job in jobs_of(connection, run):
            if connection.helm.uninstall(job.name, connection.api.target):
                typer.echo(f"uninstalled {job.name}")
            else:
                typer.echo(
                    f"{job.name} belongs to no release of Helm (storage {connection.api.target.storage}); left alone"
                )


def suspend(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Hold a run: its pods commit a checkpoint and go; resume continues from there.

    Example: editr1 suspend my-grpo -n editr1
    """
    _suspend(run, True, cluster, namespace)


def resume(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Let a suspended run go on.

    Example: editr1 resume my-grpo -n editr1
    """
    _suspend(run, False, cluster, namespace)


def wait(
    run: Run,
    timeout: Annotated[float | None, typer.Option(help="Seconds; then exit 124.")] = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Wait until a run is over; exit with 0, or with the exit code of the stage that failed.

    Example: editr1 wait my-grpo -n editr1 --timeout 86400
    """
    from editr1.cli.editruns import wait_for
    from editr1.cli.follow import follow_releases
    from editr1.launch.kubernetes.overview import jobs_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _whole(connection, run):
            raise typer.Exit(wait_for(connection, run, StopFlag(), timeout))
        names = [job.name for job in jobs_of(connection, run)]
        code = follow_releases(connection, names, StopFlag(), timeout)
    raise typer.Exit(code)


def explain(run: Run, cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Say in a sentence what each stage of a run is doing, or why it is not.

    Example: editr1 explain my-grpo -n editr1
    """
    from editr1.cli.editruns import sentences
    from editr1.launch.kubernetes.overview import explain as sentence
    from editr1.launch.kubernetes.overview import jobs_of, overview

    with reporting():
        connection = _connect(cluster, namespace)
        whole = _whole(connection, run)
        if whole:
            for line in sentences(whole):
                typer.echo(line)
            return
        for job in jobs_of(connection, run):
            typer.echo(sentence(overview(connection, job)))


def doctor(cluster: ClusterOption = None, namespace: NamespaceOption = None) -> None:
    """Look at the whole way to a running stage: API, rights, quota, GPUs, bucket, KEDA, queue, collector.

    Exits with 1 when something is missing that a run needs.

    Example: editr1 doctor -n editr1
    """
    from rich.console import Console
    from rich.table import Table

    from editr1.launch.kubernetes.doctor import examine

    with reporting():
        connection = _connect(cluster, namespace)
        findings = list(examine(connection))
    console = Console()
    table = Table("what", "", "found")
    for found in findings:
        word, colour = ("ok", "green") if found.ok else ("missing", "red") if found.needed else ("absent", "yellow")
        table.add_row(found.what, f"[{colour}]{word}[/]", found.detail)
        if not console.is_terminal:
            typer.echo(f"{word:8}{found.what}: {found.detail}")
    if console.is_terminal:
        console.print(table)
    if any(found.needed and not found.ok for found in findings):
        raise typer.Exit(1)


def bundle(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Archive to write. Default: RUN-bundle.tar.gz.")
    ] = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Gather objects, events, logs, attempts and the doctor's findings of a run for a bug report; secrets are hidden.

    Example: editr1 bundle my-grpo -n editr1
    """
    from editr1.launch.kubernetes.bundle import write_bundle

    target = out or Path(f"{run}-bundle.tar.gz")
    with reporting():
        names = write_bundle(_connect(cluster, namespace), run, target)
    typer.echo(f"{target}: {len(names)} files")


def trace(
    run: Run,
    store: StoreOption = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", envvar="EDITR1_RUNS_DIR", help="Folder of local runs.")
    ] = Path("runs"),
    cluster: ClusterOption = None,
) -> None:
    """Draw a run's time line from the spans in its record; needs no collector and no cluster.

    Example: editr1 trace quickstart
    """
    from rich.console import Console

    from editr1.config.loader import ConfigError
    from editr1.launch.kubernetes.connect import cluster_store, load_cluster
    from editr1.runs.find import existing_store, run_folder
    from editr1.runs.timeline import draw, gather

    with reporting():
        folder = run_folder(runs_dir, run)
        if store is not None:
            bucket = store.startswith("s3:")
            opened = cluster_store(load_cluster(cluster), store) if bucket else existing_store(store)
        elif folder is not None:
            opened = existing_store(str(folder / "store"))
        else:
            try:
                opened = cluster_store(load_cluster(cluster))
            except ConfigError as error:
                raise ConfigError(f"no run {run!r} below {runs_dir}, and {error}") from None
        spans = gather(opened, run, (folder or runs_dir / run) / "spans.jsonl")
    if not spans:
        raise fail(f"no spans of run {run!r} in {opened.url}", 2)
    draw(spans, Console())


def _connect(cluster: Path | None, namespace: str | None) -> Connection:
    from editr1.launch.kubernetes.connect import connect, load_cluster

    return connect(load_cluster(cluster, cluster_overrides(namespace)))


def _whole(connection: Connection, run: str) -> EditRun | None:
    from editr1.launch.kubernetes.editruns import EditRuns

    return EditRuns(connection.api).get(run)


def _suspend(run: str, hold: bool, cluster: Path | None, namespace: str | None) -> None:
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.overview import jobs_of

    with reporting():
        connection = _connect(cluster, namespace)
        if _whole(connection, run):
            EditRuns(connection.api).suspend(run, hold)
            typer.echo(f"{'suspended' if hold else 'resumed'} run {run}")
            return
        for job in jobs_of(connection, run):
            if job.service:
                typer.echo(f"{job.name} is a service; it is scaled, not suspended")
                continue
            connection.api.suspend(job.name, hold)
            typer.echo(f"{'suspended' if hold else 'resumed'} {job.name}")


def _table(stages: list[StageOverview]) -> None:
    from rich.console import Console
    from rich.table import Table

    from editr1.durations import format_duration

    table = Table("run", "stage", "release", "state", "progress", "left", "restarts", "age")
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
    console = Console()
    console.print(table)
    for stage in stages:
        if stage.state.reason:
            console.print(f"{stage.job.name}: {stage.state.reason}", markup=False, highlight=False)
        if stage.note:
            console.print(f"{stage.job.name}: progress unknown: {stage.note}", markup=False, highlight=False)
