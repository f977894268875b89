"""EditRuns on the terminal: made, followed, shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from editr1.artifacts import ArtifactStore
    from editr1.cli.view import RunView
    from editr1.config.cluster import ClusterConfig
    from editr1.config.store import StoreConfig
    from editr1.launch.kubernetes.connect import Connection
    from editr1.launch.kubernetes.editruns import EditRun
    from editr1.runs.record import RunRecord
    from editr1.runs.spec import RunSpec

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class RunThere:
    """How a run of the cluster went. ``record`` is None where it was left to itself."""

    code: int = 0
    record: RunRecord | None = None
    worked: bool = True


def run_there(
    target: ClusterConfig,
    spec: RunSpec,
    url: str | None,
    store: StoreConfig,
    folder: Path,
    view: RunView,
    detach: bool,
) -> RunThere | None:
    """Give the run to the cluster's operator and follow it; None where the cluster has none.

    Raises:
        ConfigError: ``detach`` without an operator, or a run of that name that does something else.
        StageFailed: the run failed.
    """
    from editr1.artifacts import open_store
    from editr1.cli.common import StopFlag, command_line
    from editr1.config.loader import ConfigError
    from editr1.launch.checkout import git_revision
    from editr1.launch.kubernetes.connect import connect
    from editr1.launch.kubernetes.editruns import COMMAND_NOTE, REVISION_NOTE, EditRuns, follow, uploaded
    from editr1.runs.record import load_record

    connection = connect(target)
    runs = EditRuns(connection.api)
    if not runs.served():
        if detach:
            raise ConfigError(
                "--detach needs the operator in the cluster: helm install editr1-operator charts/operator"
            )
        return None
    opened = open_store(store)
    if url is not None:
        spec = spec.model_copy(update={"spec": spec.spec.model_copy(update={"store": url})})
    name, where = spec.metadata.name, connection.api.namespace
    before = runs.get(name)
    made = runs.apply(uploaded(spec, opened), {REVISION_NOTE: git_revision(), COMMAND_NOTE: command_line()})
    view.console.print(f"{'made' if made else 'joined'} run {name} in namespace {where}; the cluster takes it on")
    if detach:
        view.console.print(f"  editr1 status {name} -n {where}\n  editr1 logs {name} -n {where} -f", highlight=False)
        return RunThere()
    if not follow(runs, name, opened, view, StopFlag("the run goes on in the cluster; the same command follows it")):
        return RunThere(code=130)
    record = load_record(opened, name)
    if record is None:
        raise ConfigError(f"run {name!r} has no record in {opened.url}: the operator writes to another bucket")
    _keep_spans(opened, name, folder)
    after = runs.get(name)
    started = any(stage.attempts for stage in (after.status.stages if after else ()))
    return RunThere(0, record, worked=started and (made or before is None or not before.over))


def show_run(run: EditRun) -> None:
    """A run's stages as a table, then what keeps it waiting."""
    from editr1.durations import format_duration

    console = Console()
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
        console.print(line, markup=False, highlight=False)


def show_runs(runs: list[EditRun]) -> None:
    """One line a run."""
    from editr1.durations import format_duration

    table = Table("run", "stage", "state", "progress", "reason", "age")
    for run in runs:
        status = run.status
        age = format_duration(time.time() - run.created)
        table.add_row(run.name, status.stage, str(status.state), status.progress, str(status.reason or ""), age)
    Console().print(table)


def sentences(run: EditRun) -> Iterator[str]:
    """What the run is doing, or why it is not, and the same of each stage that has something to say."""
    from editr1.launch.kubernetes.editruns import UNTAKEN
    from editr1.launch.kubernetes.run_status import Reason

    status = run.status
    if not status.stages:
        why = status.message or UNTAKEN
        yield f"{run.name} is {status.state.lower()}: {why}"
        return
    yield f"{run.name} is {status.state.lower()}" + (f": {status.message}" if status.message else "")
    for stage in status.stages:
        told = status.message.endswith(stage.message)  # every text ends with an empty one
        if not told and stage.reason is not Reason.INPUTS_MISSING:
            yield f"  {stage.name} is {stage.state.lower()}: {stage.message}"


def wait_for(connection: Connection, name: str, should_stop: Callable[[], bool], timeout: float | None) -> int:
    """Wait until a run is over; its exit code, 124 after ``timeout`` seconds, 130 when asked to stop."""
    from editr1.launch.kubernetes.editruns import EditRuns, exit_code
    from editr1.launch.kubernetes.errors import ClusterUnreachable
    from editr1.launch.kubernetes.outage import OutageTolerance

    runs, said, tolerance = EditRuns(connection.api), "", OutageTolerance()
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
                typer.echo(f"{name}: no longer there", err=True)
                return 1
            (sentence, *_) = sentences(run)
        if sentence != said:
            said = sentence
            typer.echo(f"  {sentence}", err=True)
        if run is not None and run.over:
            return exit_code(run.status)
        if should_stop():
            return 130
        if end is not None and time.monotonic() > end:
            return 124
        time.sleep(POLL_SECONDS)


def follow_logs(connection: Connection, name: str, stage: str | None, should_stop: Callable[[], bool]) -> None:
    """Print the logs of a run's stages as they come, until the run is over."""
    from editr1.launch.kubernetes.editruns import EditRuns
    from editr1.launch.kubernetes.errors import ClusterUnreachable
    from editr1.launch.kubernetes.follow import live_logs
    from editr1.launch.kubernetes.outage import OutageTolerance

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
            typer.echo(line)
        seen.update(jobs)
        if run is None or (run.over and not jobs):
            return
        time.sleep(POLL_SECONDS)


def run_logs(connection: Connection, run: EditRun, stage: str | None, tail: int) -> Iterator[str]:
    """The last lines of every rank of a run's stages, of pods that are gone from the bucket; its services' pods too."""
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


def _keep_spans(store: ArtifactStore, name: str, folder: Path) -> None:
    """The report draws the time line from a file."""
    from editr1.runs.timeline import gather

    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item) + "\n" for item in gather(store, name)]
    (folder / "spans.jsonl").write_text("".join(lines), encoding="utf-8")
