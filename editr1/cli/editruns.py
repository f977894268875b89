"""Create, follow and show EditRun resources, which are runs that the operator executes on a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from editr1.cli.common import NEGATIVE_RESULT, StopFlag, command_line
from editr1.errors import ExitCode
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from rich.console import Console

    from editr1.artifacts import ArtifactStore
    from editr1.cli.view import RunView
    from editr1.config.cluster import ClusterConfig
    from editr1.config.store import StoreConfig
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.editruns import EditRun, EditRuns
    from editr1.runs.record import RunRecord
    from editr1.runs.spec import RunSpec

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class OperatorRun:
    """Outcome of a command that submits a run to the operator.

    ``record`` is None if the command did not follow the run to its end.
    """

    code: int = ExitCode.DONE
    record: RunRecord | None = None
    any_started: bool = True


@dataclass(frozen=True)
class OperatorOptions:
    """Options of a command that submits a run to the operator."""

    detach: bool = False
    """Return as soon as the run is created, without following it."""
    replace: bool = False
    """Replace the record of a run with the same name and different settings or inputs."""
    reuse: tuple[str, ...] = ()
    """Names of runs whose finished stages are reused."""


def run_by_operator(
    target: ClusterConfig, spec: RunSpec, store: StoreConfig, folder: Path, view: RunView, options: OperatorOptions
) -> OperatorRun | None:
    """Submit a run to the operator in the cluster and follow it. Returns None if the cluster has no operator or must not use it.

    Args:
        target: settings of the cluster.
        spec: the run.
        store: settings with which this machine opens the artifact store.
        folder: local folder to which the run's spans are written.
        view: object that prints the progress.
        options: whether to follow the run, and what to do with a run with the same name.

    Raises:
        ConfigError: ``detach`` is set but the cluster has no operator, or another run has this name.
        NameInUse: the record of the run has different settings or inputs, and ``replace`` is not set.
        StageFailed: a stage of the run failed.
        RunRejected: the operator rejected the run.
    """
    from editr1.artifacts import OutageWait, open_store
    from editr1.config.loader import ConfigError
    from editr1.launch.kubernetes.connect import connect
    from editr1.launch.kubernetes.editruns import EditRuns, follow
    from editr1.runs.reuse import reuse_results

    connection = connect(target)
    runs, name = EditRuns(connection.api), spec.metadata.name
    if not target.use_operator or not runs.is_installed():
        if options.detach:
            raise ConfigError(_no_operator_for_detach(target))
        if runs.is_installed() and runs.get(name) is not None:
            raise ConfigError(
                f"the EditRun {name!r} exists in namespace {connection.api.namespace}, so an operator may execute the same"
                f" run; delete it with: editr1 cancel {name}"
            )
        return None
    waiting = open_store(store, OutageWait(store.outage_seconds, report=view.run_waits))
    opened = waiting.without_waiting()
    before = runs.get(name)
    if before is None and not options.replace:
        _check_name(spec, waiting)
    reuse_results(spec, waiting, options.reuse)
    created = _create(runs, spec, waiting, replace=options.replace)
    _print_created(view.console, name, connection.api.namespace, created, options.detach)
    if options.detach:
        return OperatorRun()
    should_stop = StopFlag("the run continues on the cluster; repeat the command to follow it again")
    if not follow(runs, name, opened, view, should_stop):
        return OperatorRun(code=ExitCode.INTERRUPTED)
    record = _load_record(waiting, name)
    _save_spans(waiting, name, folder)
    was_active = created or before is None or not before.has_ended
    return OperatorRun(record=record, any_started=was_active and _any_attempt(runs, name))


def _no_operator_for_detach(target: ClusterConfig) -> str:
    """Return the error message for --detach without an operator, which would have to execute the run."""
    if not target.use_operator:
        return "--detach needs the operator, but --no-operator (setting use_operator: false) excludes it; remove one of them"
    return (
        "--detach: the cluster has no Edit-R1 operator; install it with: helm install editr1-operator charts/operator"
    )


def _check_name(spec: RunSpec, store: ArtifactStore) -> None:
    """Raise NameInUse if the store has a record of the run with different settings or inputs."""
    from editr1.runs.name_in_use import NameInUse, run_differences
    from editr1.runs.record import load_record

    record = load_record(store, spec.metadata.name)
    # This machine cannot reach the reward servers in the cluster, so their models are not compared.
    if record and (lines := run_differences(record, spec, store, ask=None)):
        raise NameInUse(spec.metadata.name, lines, store.url)


def _create(runs: EditRuns, spec: RunSpec, store: ArtifactStore, *, replace: bool) -> bool:
    """Upload the local inputs of a run and create its EditRun. Returns False if an identical run already exists."""
    from editr1.launch.checkout import git_revision
    from editr1.launch.kubernetes.editruns import COMMAND_ANNOTATION, REVISION_ANNOTATION, upload_folders
    from editr1.runs.partial import has_partial_result
    from editr1.runs.record import load_record

    annotations = {REVISION_ANNOTATION: git_revision(), COMMAND_ANNOTATION: command_line()}
    record = load_record(store, spec.metadata.name, ignore_unreadable=True)
    partial = record is not None and has_partial_result(store, record)
    return runs.apply(upload_folders(spec, store), annotations, replace=replace, is_partial=partial)


def _print_created(console: Console, name: str, namespace: str, created: bool, detach: bool) -> None:
    console.print(f"{'created' if created else 'attached to'} run {name} in namespace {namespace}")
    if detach:
        console.print(f"  editr1 status {name} -n {namespace}\n  editr1 logs {name} -n {namespace} -f")


def _load_record(store: ArtifactStore, name: str) -> RunRecord:
    """Load the record of a run that has ended. Raises ConfigError if the store does not contain it."""
    from editr1.config.loader import ConfigError
    from editr1.runs.record import load_record

    record = load_record(store, name)
    if record is None:
        raise ConfigError(
            f"run {name!r} has no record in {store.url}; the operator probably uses a different artifact store; "
            "set the same store in the operator's settings and in the cluster settings"
        )
    return record


def _any_attempt(runs: EditRuns, name: str) -> bool:
    """Return True if the operator started at least one stage of the run."""
    run = runs.get(name)
    return run is not None and any(stage.attempts for stage in run.status.stages)


def show_run(run: EditRun) -> None:
    """Print a table of the stages of a run, and then sentences that explain its state."""
    from editr1.durations import format_duration
    from editr1.terminal.console import output_console

    console = output_console()
    table = Table("stage", "kind", "state", "progress", "attempts", "time", "reason")
    for stage in run.status.stages:
        began = stage.attempts[0].started if stage.attempts else None
        took = format_duration((stage.ended or time.time()) - began) if began else ""
        table.add_row(
            stage.name,
            stage.kind,
            str(stage.state),
            stage.progress,
            str(len(stage.attempts) or ""),
            took,
            str(stage.reason or ""),
        )
    console.print(table)
    for line in sentences(run):
        console.print(line)


def show_runs(runs: list[EditRun]) -> None:
    """Print a table with one row per run."""
    from editr1.durations import format_duration
    from editr1.terminal.console import output_console

    table = Table("run", "stage", "state", "progress", "reason", "age")
    for run in runs:
        status = run.status
        age = format_duration(time.time() - run.created)
        table.add_row(run.name, status.stage, str(status.state), status.progress, str(status.reason or ""), age)
    output_console().print(table)


def sentences(run: EditRun) -> Iterator[str]:
    """Yield a sentence about the state of a run, then one for each stage whose message it does not contain."""
    from editr1.launch.kubernetes.editruns import NO_OPERATOR
    from editr1.launch.kubernetes.run_status import Reason

    status = run.status
    if not status.stages:
        why = status.message or NO_OPERATOR
        yield f"{run.name} is {status.state.lower()}: {why}"
        return
    yield f"{run.name} is {status.state.lower()}" + (f": {status.message}" if status.message else "")
    for stage in status.stages:
        repeated = status.message.endswith(stage.message)  # also True for an empty message
        if not repeated and stage.reason is not Reason.INPUTS_MISSING:
            yield f"  {stage.name} is {stage.state.lower()}: {stage.message}"


def wait_for(connection: Connection, name: str, should_stop: Callable[[], bool], timeout: float | None) -> int:
    """Wait until a run has ended. Returns its exit code, TIMEOUT after ``timeout`` seconds, or INTERRUPTED."""
    from editr1.artifacts.outage import OutageTolerance
    from editr1.launch.kubernetes.editruns import EditRuns, exit_code
    from editr1.launch.kubernetes.errors import ClusterUnreachable

    runs, noted, tolerance = EditRuns(connection.api), "", OutageTolerance()
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        run = None
        try:
            run = runs.get(name)
        except ClusterUnreachable as error:
            sentence = tolerance.record(error)
        else:
            tolerance.answered()
            if run is None:
                echo(f"run {name} no longer exists", err=True)
                return NEGATIVE_RESULT
            (sentence, *_) = sentences(run)
        if sentence != noted:
            noted = sentence
            echo(f"  {sentence}", err=True)
        if run is not None and run.has_ended:
            return exit_code(run.status)
        if should_stop():
            return ExitCode.INTERRUPTED
        if end is not None and time.monotonic() > end:
            return ExitCode.TIMEOUT
        time.sleep(POLL_SECONDS)


def follow_logs(connection: Connection, name: str, stage: str | None, should_stop: Callable[[], bool]) -> None:
    """Print new log lines of a run, or of one of its stages, until the run has ended."""
    from editr1.artifacts.outage import OutageTolerance
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.errors import ClusterUnreachable
    from editr1.launch.kubernetes.follow import live_logs

    runs, seen, tolerance = EditRuns(connection.api), set[str](), OutageTolerance()
    while not should_stop():
        try:
            run = runs.get(name)
            known = connection.api.jobs(name)
        except ClusterUnreachable as error:
            tolerance.record(error)
            time.sleep(POLL_SECONDS)
            continue
        tolerance.answered()
        jobs = [job.name for job in known if stage in (None, job.stage) and job.name not in seen]
        for line in live_logs(connection.api, jobs, should_stop):
            echo(line)
        seen.update(jobs)
        if run is None or (run.has_ended and not jobs):
            return
        time.sleep(POLL_SECONDS)


def run_logs(connection: Connection, run: EditRun, stage: str | None, tail: int) -> Iterator[str]:
    """Yield the last log lines of every rank of a run, or of one of its stages."""
    from editr1.launch.kubernetes.connect import cluster_store
    from editr1.launch.kubernetes.follow import past_logs
    from editr1.runs.kinds import KINDS, Kind
    from editr1.runs.live import LiveFiles

    store = cluster_store(connection.config, run.spec.store)
    for item in run.status.stages:
        if not item.key or stage not in (None, item.name):
            continue
        service = KINDS[Kind(item.kind)].service
        files = None if service else LiveFiles(store, run.name, item.name, item.key)
        yield from past_logs(connection.api, item.release, files, tail)


def _save_spans(store: ArtifactStore, name: str, folder: Path) -> None:
    """Write the spans of the run to ``folder``, where the report reads them to draw the timeline."""
    from editr1.runs.timeline import gather_spans

    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item) + "\n" for item in gather_spans(store, name)]
    (folder / "spans.jsonl").write_text("".join(lines), encoding="utf-8")
