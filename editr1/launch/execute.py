"""Run the stages of a run file. A lock on the run's folder ensures that only one process works on the run at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.store import StoreConfig, store_at
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.local.lock import inherited_lock, lock
from editr1.launch.observer import Observer
from editr1.launch.orchestrator import GRACE_SECONDS, READY_SECONDS, RunContext, RunOrchestrator, RunStopped
from editr1.launch.origin import run_origin
from editr1.runs.job import RuntimeSettings
from editr1.runs.record import Origin, RunRecord, load_record
from editr1.runs.spec import RunSpec
from editr1.telemetry import configure
from editr1.telemetry.log import requested_format


def execute(
    spec: RunSpec,
    *,
    folder: Path,
    command: str,
    observer: Observer,
    should_stop: Callable[[], bool],
    store: StoreConfig | None = None,
    cluster: ClusterConfig | None = None,
    wait: float = 0.0,
) -> tuple[RunRecord, bool]:
    """Run every stage of ``spec`` that has no result yet.

    Stages run as local processes, or on ``cluster`` if it is given. The spans of the run are written to ``folder``. The
    artifacts are written to ``store``, else to the store that ``spec`` names, else to ``<folder>/store``.

    After an interruption, another call resumes from the last checkpoint. If an earlier command was killed, its stage processes may
    still be running. In this case, the call first waits until they have exited.

    Returns:
        The record of the run, and True if any stage was started.

    Raises:
        ConfigError: another process is still using ``folder`` after ``wait`` seconds.
        StageFailed, RunStopped: see :class:`RunOrchestrator`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = store or store_at(spec.spec.store or (folder / "store").as_uri())
    busy, left = "another process is using this run folder", "a stage process of an earlier command is still running"
    with (
        lock(folder / ".lock", busy, wait=wait, on_wait=_WaitNotice(busy, observer, should_stop)),
        inherited_lock(
            folder / ".stages.lock", left, wait=GRACE_SECONDS, on_wait=_WaitNotice(left, observer, should_stop)
        ) as descriptor,
    ):
        opened = open_store(config)
        origin = run_origin(command)
        record = _load_or_create(opened, spec, origin)
        spans = folder / "spans.jsonl"
        configure("editr1-run", spans, **{"editr1.run": record.name})
        context = RunContext(
            spec=spec,
            store=opened,
            store_config=config,
            folder=folder,
            observer=observer,
            should_stop=should_stop,
            origin=origin,
            runtime=RuntimeSettings(span_file=spans, log_format=requested_format()),
            ready_seconds=cluster.reward_ready_timeout_seconds if cluster else READY_SECONDS,
        )
        any_started = (
            RunOrchestrator(context, record, LocalLauncher((descriptor,))).run()
            if cluster is None
            else _orchestrate_on_cluster(context, record, cluster)
        )
    return record, any_started


def _orchestrate_on_cluster(context: RunContext, record: RunRecord, cluster: ClusterConfig) -> bool:
    from editr1.launch.kubernetes.connect import connect
    from editr1.launch.kubernetes.launcher import KubernetesLauncher

    connection = connect(cluster)
    spans = context.folder / "spans.jsonl"
    launcher = KubernetesLauncher(cluster, connection.api, connection.helm, context.store, spans)
    return RunOrchestrator(context, record, launcher).run()


class _WaitNotice:
    """Callback that is called repeatedly while a command waits for a lock that another process holds.

    The first call notifies the observer that the run waits. Every call raises RunStopped if the user has stopped the command.
    """

    def __init__(self, reason: str, observer: Observer, should_stop: Callable[[], bool]) -> None:
        self._reason, self._observer, self._should_stop, self._reported = reason, observer, should_stop, False

    def __call__(self) -> None:
        if not self._reported:
            self._observer.run_waits(self._reason)
            self._reported = True
        if self._should_stop():
            raise RunStopped


def _load_or_create(store: ArtifactStore, spec: RunSpec, origin: Origin) -> RunRecord:
    """Return the record of the run from the store, or a new record if there is none.

    Stages that were removed from the run file are removed from the record.
    """
    record = load_record(store, spec.metadata.name)
    if record is None:
        return RunRecord(name=spec.metadata.name, seed=spec.spec.seed, created=time.time(), **origin)
    wanted = {stage.name for stage in spec.spec.stages}
    for removed in set(record.stages) - wanted:
        del record.stages[removed]
    record.seed = spec.spec.seed
    return record
