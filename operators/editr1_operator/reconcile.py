"""Reconcile a run, that is, advance it by one step from its current state.

A reconciliation observes the run, decides on the next step, writes the new status, takes the actions that follow from it, and
saves the run's record to the artifact store.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from editr1.artifacts import StoreError
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.editruns import COMMAND_ANNOTATION, REPLACE_ANNOTATION, REVISION_ANNOTATION
from editr1.launch.kubernetes.errors import ClusterError, ClusterUnreachable
from editr1.launch.kubernetes.helm import Helm
from editr1.launch.kubernetes.resources import INSTANCE
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus
from editr1.runs.kinds import KINDS
from editr1.runs.name_in_use import NameInUse, setting_differences
from editr1.runs.record import RunRecord, UnreadableRecord, load_record, save_record
from editr1.runs.resolve import HubUnreachable
from editr1.runs.spec import RunSpec
from editr1.serving.identity import RewardUnreachable
from editr1_operator.actions import Action, LoadResult, Resolve
from editr1_operator.apply import Applier
from editr1_operator.archive import archive_attempts, archive_spans
from editr1_operator.cache import Cache, Key
from editr1_operator.conditions import reject, summarize
from editr1_operator.decide import decide
from editr1_operator.gather import Gatherer, Progress
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.notify import Notifier
from editr1_operator.objects import Objects
from editr1_operator.observed import ObservedStage
from editr1_operator.record import update_record
from editr1_operator.resolution import Resolver
from editr1_operator.settings import NamespaceSettings, SettingsCache, read_run
from editr1_operator.status_writer import StatusWriter
from editr1_operator.timing import REFUSED_SECONDS, RESYNC_SECONDS, next_reconcile, progress_interval
from editr1_operator.trace import Exporter, traceparent

MAX_DECISIONS = 12
"""Maximum number of decisions in one reconciliation. A new decision is made after each read of inputs or results."""
PROCEED = (
    "to keep the record, choose another name; to replace it, create the run again with the annotation editr1.dev/replace=true."
    " Finished stages whose settings and inputs are unchanged are reused"
)
log = logging.getLogger("editr1.operator")
_OVER = (RunState.DONE, RunState.FAILED)


@dataclass
class _Memory:
    """State of a run that the operator holds in memory between two reconciliations of the run."""

    progress: Progress = field(default_factory=dict)
    images_and_charts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Container image and chart of each stage that this process created, by stage name, for the run's record."""
    recorded: int | None = None
    """Hash of the status from which the run's record was last saved."""
    run: tuple[int, RunSpec] | None = None
    """Generation of the specification, and the parsed specification."""
    unanswered: dict[str, float] = field(default_factory=dict)
    """Time since which the reward servers of a stage have not responded, by stage name."""
    resynced: float = 0.0
    finished: bool = False
    """True if the run has ended and its final status and record have been written."""


class Reconciler:
    """Reconciler of all runs. It is thread-safe as long as two threads do not reconcile the same run at the same time."""

    def __init__(
        self,
        client: KubernetesClient,
        cache: Cache,
        helm: Helm,
        settings: SettingsCache,
        notifier: Notifier,
        exporter: Exporter,
    ) -> None:
        self.client, self.cache, self.helm, self.settings = client, cache, helm, settings
        self.notifier, self.exporter = notifier, exporter
        self.namespace_events = NamespaceEvents(client)
        self._memory: dict[str, _Memory] = {}

    def reconcile(self, key: Key) -> float | None:
        """Observe a run, decide on its next step, and take this step.

        Returns:
            Time of the next reconciliation if nothing changes earlier (seconds since the epoch), or ``None`` if the run has
            ended or does not exist.

        Raises:
            StoreError, HubUnreachable, ClusterUnreachable: the artifact store, the hub or the API server cannot be reached.
                Call the method again later. The status of the run reports an outage of the store or the hub.
        """
        body = self.cache.run(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return None
        uid = body["metadata"]["uid"]
        memory = self._memory.setdefault(uid, _Memory())
        again = _Reconciliation(self, memory, body).run()
        if memory.finished:
            self._memory[uid] = _Memory(finished=True)  # This frees all other state of the run.
        return again

    def record_deletion(self, body: Mapping[str, Any]) -> None:
        """Save in the run's record that the run was deleted before it ended. Its jobs are deleted by Kubernetes."""
        status = RunStatus.model_validate(body.get("status") or {})
        self._memory.pop(body["metadata"]["uid"], None)
        if status.state in _OVER or not status.stages:
            return
        run = read_run(body)
        settings = self.settings.of_namespace(self.client, body["metadata"]["namespace"], run.spec.store)
        known = load_record(settings.store, run.metadata.name) or self.new_record(body, run)
        stopped = status.model_copy(update={"state": RunState.SUSPENDED, "ended": time.time()})
        save_record(settings.store, update_record(known, run.spec, stopped, {}))

    def new_record(self, body: Mapping[str, Any], run: RunSpec) -> RunRecord:
        """Return a new record for a run. It contains no stages yet."""
        annotations = body["metadata"].get("annotations") or {}
        return RunRecord(
            name=run.metadata.name,
            seed=run.spec.seed,
            command=annotations.get(COMMAND_ANNOTATION, "kubectl apply"),
            git_revision=revision_of(body),
            versions=self.settings.versions,
            machine=f"Kubernetes, namespace {body['metadata']['namespace']}",
            created=time.time(),
        )


def revision_of(body: Mapping[str, Any]) -> str:
    """Return the git revision of the code that submitted the run.

    If it is unknown, return the revision of the operator's code.
    """
    annotations = body["metadata"].get("annotations") or {}
    return str(annotations.get(REVISION_ANNOTATION) or os.environ.get("EDITR1_REVISION", ""))


def _reason_of(error: Exception) -> Reason:
    """Return the reason in the status of a run that cannot continue because of an outage."""
    if isinstance(error, RewardUnreachable):
        return Reason.SERVICE_STARTING
    return Reason.STORE_UNREACHABLE if isinstance(error, StoreError) else Reason.HUB_UNREACHABLE


class _Reconciliation:
    """A single reconciliation of one run."""

    def __init__(self, reconciler: Reconciler, memory: _Memory, body: dict[str, Any]) -> None:
        self._shared, self._memory, self._now = reconciler, memory, time.time()
        self._client, self._cache = reconciler.client, reconciler.cache
        self._writer = StatusWriter(self._client, self._cache, reconciler.notifier, body, self._now)
        meta = body["metadata"]
        self._namespace, self._name, self._uid = meta["namespace"], meta["name"], meta["uid"]
        self._generation = int(meta.get("generation", 1))
        self._observed: Mapping[str, ObservedStage] = {}
        self._progress_s = progress_interval(len(self._cache.runs()))

    def run(self) -> float | None:
        """Reconcile the run. Returns the time of the next reconciliation as :meth:`Reconciler.reconcile` does."""
        before = self._writer.status
        over = before.state in _OVER and before.observed_generation > 0
        if over and self._memory.finished:
            return None
        try:
            run = self._parse_run()
        except ConfigError as error:
            if not over:
                self._writer.write(reject(before, Reason.INVALID, str(error), self._generation, self._now))
            return None
        try:
            settings = self._shared.settings.of_namespace(self._client, self._namespace, run.spec.store)
        except ClusterError:
            raise
        except ConfigError as error:
            # The run starts or continues as soon as the settings of the namespace have been corrected.
            if not over:
                self._writer.write(before.model_copy(update={"reason": Reason.SETTINGS, "message": str(error)}))
            return self._now + (RESYNC_SECONDS if over else REFUSED_SECONDS)
        self._resync_cache(run)
        if refusal := self._refusal(run, settings):
            self._writer.write(reject(before, Reason.INVALID, refusal, self._generation, self._now))
            return None
        status, actions = self._plan(run, settings, report=not over)
        if not self._writer.write(status):
            return self._now
        status, outage = self._apply(run, settings, status, actions)
        self._save_record(run, settings, before, status)
        if outage is not None:
            raise outage
        if status.state in _OVER and not actions:
            self._memory.finished = True
            return None
        return next_reconcile(status, run.spec, self._now, self._progress_s)

    def _parse_run(self) -> RunSpec:
        """Return the run's specification, which is parsed only if its generation has changed. Raises ConfigError."""
        known = self._memory.run
        if known is None or known[0] != self._generation:
            self._memory.run = known = (self._generation, read_run(self._writer.body))
        return known[1]

    def _resync_cache(self, run: RunSpec) -> None:
        """Every few minutes, replace the run's cached jobs and pods with the objects that the API server lists.

        A watch that was interrupted does not report objects that were deleted in the meantime.
        """
        if self._now - self._memory.resynced < RESYNC_SECONDS:
            return
        first, self._memory.resynced = self._memory.resynced == 0.0, self._now
        if first:
            return
        for stage in run.spec.stages:
            known = self._writer.status.stage_of(stage.name)
            if known is None or not known.release or known.over:
                continue
            kind = "Deployment" if KINDS[stage.kind].service else "PyTorchJob"
            job = self._client.get(kind, self._namespace, known.release)
            pods = self._client.find("Pod", self._namespace, labelSelector=f"{INSTANCE}={known.release}")
            self._cache.resync(self._namespace, known.release, None if job is None else {"kind": kind, **job}, pods)

    def _plan(self, run: RunSpec, settings: NamespaceSettings, *, report: bool) -> tuple[RunStatus, Sequence[Action]]:
        """Decide on the next step, and archive ended attempts.

        If the artifact store or the hub cannot be reached and ``report`` is True, the error is written to the status of the run.
        """
        try:
            return self._decide_and_archive(run, settings)
        except (StoreError, HubUnreachable, RewardUnreachable) as error:
            if report:
                reason = _reason_of(error)
                self._writer.write(self._writer.status.model_copy(update={"reason": reason, "message": str(error)}))
            raise

    def _decide_and_archive(self, run: RunSpec, settings: NamespaceSettings) -> tuple[RunStatus, Sequence[Action]]:
        """Decide on the next step, then archive the attempts that have ended.

        The caller writes the status after that. If archiving fails, the next reconciliation therefore finds the old status and
        archives the attempts again.
        """
        status, actions = self._decide(run, settings)
        archive_attempts(
            self._shared.namespace_events,
            settings.store,
            self._namespace,
            self._name,
            self._observed,
            self._writer.status,
            status,
        )
        return status, actions

    def _decide(self, run: RunSpec, settings: NamespaceSettings) -> tuple[RunStatus, Sequence[Action]]:
        """Return the new status and the actions to take.

        A decision may first need inputs to be resolved or a result to be read. This is done immediately, followed by
        another decision.
        """
        gatherer = Gatherer(
            self._client,
            self._cache,
            self._shared.namespace_events,
            self._memory.progress,
            self._namespace,
            self._uid,
            self._now,
            self._progress_s,
        )
        resolver = Resolver(run, settings, self._now, self._memory.unanswered)
        status = self._writer.status.model_copy(update={"trace": traceparent(self._uid)})
        for _ in range(MAX_DECISIONS):
            observed = gatherer.observe(run, settings, status, self._generation, resolver.results)
            self._observed = observed.stages
            plan = decide(observed)
            reads = [action for action in plan.actions if isinstance(action, Resolve | LoadResult)]
            if not reads:
                return plan.status, plan.actions
            status = plan.status
            for action in reads:
                status = resolver.apply(action, status)
        raise RuntimeError(
            f"the run still needs inputs or results to be read after {MAX_DECISIONS} decisions; this is a bug in the operator, please"
            " report it with the output of kubectl get editrun -o yaml"
        )

    def _apply(
        self, run: RunSpec, settings: NamespaceSettings, status: RunStatus, actions: Sequence[Action]
    ) -> tuple[RunStatus, ClusterUnreachable | None]:
        """Take the actions, and write the new status if the objects of a stage could not be created.

        Returns the status, and the error if the API server did not respond. The caller raises this error after it has saved the
        record.
        """
        applier = self._make_applier(run, settings, status)
        outage: ClusterUnreachable | None = None
        failed = {}
        try:
            failed = applier.apply(actions)
        except ClusterUnreachable as error:
            outage = error
        self._memory.images_and_charts.update(applier.images_and_charts)
        if failed:
            stages = [failed.get(stage.name, stage) for stage in status.stages]
            status = summarize(status.model_copy(update={"stages": stages}), run.spec, self._generation, self._now)
            self._writer.write(status)
        return status, outage

    def _make_applier(self, run: RunSpec, settings: NamespaceSettings, status: RunStatus) -> Applier:
        meta, revision = self._writer.body["metadata"], revision_of(self._writer.body)
        objects = Objects(self._shared.helm, settings.cluster, settings.config, meta, run.spec, revision)
        return Applier(self._client, self._cache, objects, run.spec, status, meta)

    def _load_record(self, settings: NamespaceSettings) -> RunRecord | None:
        """Return the record of the run.

        A record that cannot be read is ignored, because the record is recreated from the status.
        """
        try:
            return load_record(settings.store, self._name)
        except UnreadableRecord as error:
            log.warning("%s", str(error).splitlines()[0])
            return None

    def _refusal(self, run: RunSpec, settings: NamespaceSettings) -> str:
        """Return the reason why the run must not start, or an empty string if it may start or has started.

        A run must not start if the record with its name has different settings.
        """
        annotations = self._writer.body["metadata"].get("annotations") or {}
        if self._writer.status.stages or annotations.get(REPLACE_ANNOTATION) == "true":
            return ""
        known = self._load_record(settings)
        lines = setting_differences(known, run.spec) if known else []
        return str(NameInUse(self._name, lines, settings.store.url, proceed=PROCEED)) if lines else ""

    def _save_record(self, run: RunSpec, settings: NamespaceSettings, before: RunStatus, status: RunStatus) -> None:
        current = hash(status.model_dump_json())
        if current == self._memory.recorded:
            return
        known = self._load_record(settings)
        base = known or self._shared.new_record(self._writer.body, run)
        record = update_record(base, run.spec, status, self._memory.images_and_charts)
        if record != known:
            # The record is saved last, so that the next reconciliation repeats these steps if one of them fails.
            exporter = self._shared.exporter
            archive_spans(settings.store, exporter, self._namespace, self._name, self._uid, before, status)
            save_record(settings.store, record)
        self._memory.recorded = current
