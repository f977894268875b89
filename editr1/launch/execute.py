"""Run the stages of a run file.

A lock on the run's folder ensures that only one process on this machine executes the run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from editr1.artifacts import ArtifactStore, OutageWait, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.store import StoreConfig, store_at
from editr1.launch.follow import RunRequest, TakenOver, execute_or_follow, load_known
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.local.lock import inherited_lock, lock
from editr1.launch.observer import Observer
from editr1.launch.orchestrator import (
    GRACE_SECONDS,
    READY_SECONDS,
    RunContext,
    RunOrchestrator,
    RunStopped,
    waiting_ask,
)
from editr1.launch.origin import run_origin
from editr1.runs.check import check_inputs
from editr1.runs.claim import Heartbeat, newest_claim
from editr1.runs.job import RuntimeSettings
from editr1.runs.name_in_use import stated_settings
from editr1.runs.record import Origin, RunRecord, save_record
from editr1.runs.resolve import AskIdentity
from editr1.runs.reuse import reuse_results
from editr1.runs.spec import RunSpec
from editr1.serving.identity import RewardIdentity
from editr1.telemetry import configure
from editr1.telemetry.log import requested_format

if TYPE_CHECKING:
    from editr1.launch.kubernetes.namespace import ClusterNamespace


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
    replace: bool = False,
    reuse: Sequence[str] = (),
) -> tuple[RunRecord, bool]:
    """Run every stage of ``spec`` that has no result yet.

    If a process on another machine executes the same run in the same store, this process follows the run, and takes
    it over if the other process disappears. With ``replace``, an existing record with different settings or inputs is
    replaced. For stages with the same key, results are copied from the runs ``reuse`` in the same store.

    Stages run as local processes, or on ``cluster`` if it is given. The spans of the run are written to ``folder``.
    The artifacts are written to ``store``. If it is None, they are written to the store in ``spec``, or else to
    ``<folder>/store``.

    After an interruption, another call resumes from the last checkpoint. If an earlier command was killed, its stage processes may
    still be running. In this case, the call first waits until they have exited.

    Returns:
        The record of the run, and whether any stage was started.

    Raises:
        ConfigError: another process is still using ``folder`` after ``wait`` seconds, or an input from outside the run does not
            exist or is not what its stage expects.
        NameInUse: the record of the run has different settings or inputs, and ``replace`` is not set.
        TakenOver: another process has taken over the run.
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
        request = RunRequest(
            spec, _open_waiting(config, observer, should_stop), observer, should_stop, replace, cluster is not None
        )
        for note in check_inputs(spec, request.store, f"run {request.name}"):
            observer.run_waits(note)
        claim = execute_or_follow(request)
        if isinstance(claim, RunRecord):
            return claim, True
        with Heartbeat(claim) as heartbeat:
            lost = heartbeat.lost.is_set
            record = _load_or_create(request, run_origin(command))
            save_record(request.store, record)
            reuse_results(spec, request.store, reuse)
            spans = folder / "spans.jsonl"
            configure("editr1-run", spans, **{"editr1.run": record.name})
            context = RunContext(
                spec=spec,
                store=request.store,
                store_config=config,
                folder=folder,
                observer=observer,
                should_stop=lambda: lost() or should_stop(),
                may_save=lambda: not lost(),
                origin=run_origin(command),
                runtime=RuntimeSettings(span_file=spans, log_format=requested_format()),
                ready_seconds=cluster.reward_ready_timeout_seconds if cluster else READY_SECONDS,
            )
            try:
                any_started = (
                    RunOrchestrator(context, record, LocalLauncher((descriptor,))).run()
                    if cluster is None
                    else _orchestrate_on_cluster(context, record, cluster)
                )
            except RunStopped:
                if not lost():
                    raise
                newest = newest_claim(request.store, record.name)
                raise TakenOver(record.name, newest.holder if newest else None) from None
    return record, any_started


def cluster_ask(api: ClusterNamespace, context: RunContext) -> AskIdentity:
    """Return a function that reads the identity of a reward model from its Deployment.

    If there is no Deployment, the function requests the identity from the server's address.
    """
    from editr1.launch.kubernetes.reward_model import identity_of_service

    asked = waiting_ask(context.should_stop, context.observer.run_waits)

    def ask(urls: Sequence[str], seconds: float, *, where: str) -> RewardIdentity:
        return identity_of_service(urls, api, context.store) or asked(urls, seconds, where=where)

    return ask


def _orchestrate_on_cluster(context: RunContext, record: RunRecord, cluster: ClusterConfig) -> bool:
    from editr1.launch.kubernetes.connect import connect
    from editr1.launch.kubernetes.launcher import KubernetesLauncher

    connection = connect(cluster)
    spans = context.folder / "spans.jsonl"
    context = dataclasses.replace(context, ask=cluster_ask(connection.api, context))
    launcher = KubernetesLauncher(cluster, connection.api, connection.helm, context.store.without_waiting(), spans)
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


def _open_waiting(config: StoreConfig, observer: Observer, should_stop: Callable[[], bool]) -> ArtifactStore:
    """Open the store of a run. During an outage, its operations wait, report this to the observer, and raise RunStopped on request."""

    def check_stop() -> None:
        if should_stop():
            raise RunStopped

    return open_store(config, OutageWait(config.outage_seconds, check_stop=check_stop, report=observer.run_waits))


def _load_or_create(request: RunRequest, origin: Origin) -> RunRecord:
    """Return the record of the run from the store, or a new record if there is none.

    If an existing record is to be replaced, its start time is reset, and stages that are not in the run file are
    removed from it. All other fields of a stage are replaced when the stage is prepared.
    """
    spec, record = request.spec, load_known(request)
    stated = stated_settings(spec.spec)
    if record is None:
        return RunRecord(name=request.name, seed=spec.spec.seed, created=time.time(), stated=stated, **origin)
    if record.stated != stated and request.replace:
        record.created = time.time()
    wanted = {stage.name for stage in spec.spec.stages}
    record.stages = {name: stage for name, stage in record.stages.items() if name in wanted}
    record.seed, record.stated = spec.spec.seed, stated
    return record
