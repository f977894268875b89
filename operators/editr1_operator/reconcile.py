"""One look at a run: gather facts, decide, write the status, act, keep the record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from editr1.artifacts import ArtifactNotFound, DigestMismatch, StoreError
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.editruns import COMMAND_NOTE, REVISION_NOTE
from editr1.launch.kubernetes.errors import ClusterError, ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.helm import Helm, Object
from editr1.launch.kubernetes.resources import INSTANCE
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.values import release_name
from editr1.runs.kinds import KINDS
from editr1.runs.record import RunRecord, StageResult, load_record, load_result, save_record
from editr1.runs.resolve import HubUnreachable, resolve_stage
from editr1.runs.spec import RunSpec
from editr1_operator.actions import Action, LoadResult, Resolve
from editr1_operator.apply import Applier
from editr1_operator.archive import keep_ended, keep_spans
from editr1_operator.cache import Cache, Key
from editr1_operator.conditions import reject, summarize
from editr1_operator.decide import decide
from editr1_operator.events import changes
from editr1_operator.gather import Gatherer, Progress
from editr1_operator.metrics import RETRIES
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.notify import Notifier, cloud_event
from editr1_operator.objects import Objects, current_digest, shared_name
from editr1_operator.observed import ObservedStage
from editr1_operator.record import record_of
from editr1_operator.settings import Settings, Site, read_run
from editr1_operator.timing import QUIET_SECONDS, REFUSED_SECONDS, next_look, progress_seconds
from editr1_operator.trace import Exporter, traceparent

MOST_STEPS = 12


@dataclass
class _Memory:
    """What is remembered of a run between looks; all of it can be lost."""

    progress: Progress = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    recorded: int | None = None
    """Hash of the status that the record in the store says; the record itself would cost most of a run's memory."""
    run: tuple[int, RunSpec] | None = None
    renewed: float = 0.0
    settled: bool = False
    """The run is over, and nothing is left to do or to write."""


class Reconciler:
    """Looks at runs; safe for several threads as long as no two look at the same run."""

    def __init__(
        self,
        client: KubernetesClient,
        cache: Cache,
        helm: Helm,
        settings: Settings,
        notifier: Notifier,
        exporter: Exporter,
    ) -> None:
        self._client, self._cache, self._helm, self._settings = client, cache, helm, settings
        self._notifier, self._exporter = notifier, exporter
        self._happened = NamespaceEvents(client)
        self._memory: dict[str, _Memory] = {}

    def look(self, key: Key) -> float | None:
        """Take a run one step on. Returns when to look again if nothing happens; None where nothing is left to do.

        Raises:
            StoreError, HubUnreachable, ClusterUnreachable: look again later; the status says so where the API server can be told.
        """
        body = self._cache.run(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return None
        return _Look(self, body).take()

    def gone(self, body: Mapping[str, Any]) -> None:
        """Note in the record that a run was deleted before it was over; its jobs go with it."""
        status = RunStatus.model_validate(body.get("status") or {})
        self._memory.pop(body["metadata"]["uid"], None)
        if status.state in (RunState.DONE, RunState.FAILED) or not status.stages:
            return
        run = read_run(body)
        site = self._settings.site(self._client, body["metadata"]["namespace"], run.spec.store)
        known = load_record(site.store, run.metadata.name) or self.base_record(body, run)
        now = time.time()
        stopped = status.model_copy(update={"state": RunState.SUSPENDED, "ended": now})
        save_record(site.store, record_of(known, run.spec, stopped, {}))

    def base_record(self, body: Mapping[str, Any], run: RunSpec) -> RunRecord:
        """What the record says of the run as a whole."""
        notes = body["metadata"].get("annotations") or {}
        return RunRecord(
            name=run.metadata.name,
            seed=run.spec.seed,
            command=notes.get(COMMAND_NOTE, "kubectl apply"),
            git_revision=revision_of(body),
            versions=self._settings.versions,
            machine=f"Kubernetes, namespace {body['metadata']['namespace']}",
            created=time.time(),
        )


def revision_of(body: Mapping[str, Any]) -> str:
    """Revision of the code that submitted the run, else that of the operator's image."""
    notes = body["metadata"].get("annotations") or {}
    return str(notes.get(REVISION_NOTE) or os.environ.get("EDITR1_REVISION", ""))


class _Look:
    def __init__(self, reconciler: Reconciler, body: dict[str, Any]) -> None:
        self._all = reconciler
        self._client, self._cache = reconciler._client, reconciler._cache
        self._body, self._meta = body, body["metadata"]
        self._namespace, self._name, self._uid = self._meta["namespace"], self._meta["name"], self._meta["uid"]
        self._generation = int(self._meta.get("generation", 1))
        self._before = RunStatus.model_validate(body.get("status") or {})
        self._memory = reconciler._memory.setdefault(self._uid, _Memory())
        self._results: dict[str, StageResult | None] = {}
        self._seen: Mapping[str, ObservedStage] = {}
        self._now = time.time()
        self._progress_s = progress_seconds(len(reconciler._cache.runs()))
        self._gatherer = Gatherer(
            self._client,
            self._cache,
            reconciler._happened,
            self._memory.progress,
            self._namespace,
            self._uid,
            self._now,
            self._progress_s,
        )

    def take(self) -> float | None:
        over = self._before.state in (RunState.DONE, RunState.FAILED) and self._before.observed_generation > 0
        if over and self._memory.settled:
            return None
        try:
            run = self._run()
        except ConfigError as error:
            if not over:
                self._write(reject(self._before, Reason.INVALID, str(error), self._generation, self._now))
            return None
        try:
            site = self._all._settings.site(self._client, self._namespace, run.spec.store)
        except ClusterError:
            raise
        except ConfigError as error:
            # Not the run's fault: it begins, or goes on, once the namespace's settings are right.
            if not over:
                self._write(self._before.model_copy(update={"reason": Reason.SETTINGS, "message": str(error)}))
            return self._now + (QUIET_SECONDS if over else REFUSED_SECONDS)
        self._renew(run)
        before = self._before
        try:
            status, actions = self._decided(run, site)
            # Before the status says so: a look that fails here is taken again, one that fails later is not.
            keep_ended(self._all._happened, site.store, self._namespace, self._name, self._seen, before, status)
        except (StoreError, HubUnreachable) as error:
            if not over:
                reason = Reason.STORE_UNREACHABLE if isinstance(error, StoreError) else Reason.HUB_UNREACHABLE
                self._write(self._before.model_copy(update={"reason": reason, "message": str(error)}))
            raise
        if not self._write(status):
            return self._now
        applier = self._applier(run, site, status)
        failed: dict[str, StageStatus] = {}
        unreachable: ClusterUnreachable | None = None
        try:
            failed = applier.apply(actions)
        except ClusterUnreachable as error:
            unreachable = error
        self._memory.facts.update(applier.facts)
        if failed:
            stages = [failed.get(stage.name, stage) for stage in status.stages]
            status = summarize(status.model_copy(update={"stages": stages}), run.spec, self._generation, self._now)
            self._write(status)
        self._record(run, site, before, status)
        if unreachable is not None:
            raise unreachable
        if status.state in (RunState.DONE, RunState.FAILED) and not actions:
            self._all._memory[self._uid] = _Memory(settled=True)  # a run that is over needs no more
            return None
        return next_look(status, run.spec, self._now, self._progress_s)

    def _renew(self, run: RunSpec) -> None:
        """Ask after the run's jobs and pods now and then: a watch that had to begin anew tells of nothing that went."""
        if self._now - self._memory.renewed < QUIET_SECONDS:
            return
        first, self._memory.renewed = self._memory.renewed == 0.0, self._now
        if first:
            return
        for stage in run.spec.stages:
            known = self._before.stage_of(stage.name)
            if known is None or not known.release or known.over:
                continue
            kind = "Deployment" if KINDS[stage.kind].service else "PyTorchJob"
            job = self._client.get(kind, self._namespace, known.release)
            pods = self._client.find("Pod", self._namespace, labelSelector=f"{INSTANCE}={known.release}")
            self._cache.renew(self._namespace, known.release, None if job is None else {"kind": kind, **job}, pods)

    def _run(self) -> RunSpec:
        """The run file, checked once a generation. Raises ConfigError."""
        known = self._memory.run
        if known is None or known[0] != self._generation:
            self._memory.run = known = (self._generation, read_run(self._body))
        return known[1]

    def _decided(self, run: RunSpec, site: Site) -> tuple[RunStatus, list[Action]]:
        status = self._before.model_copy(update={"trace": traceparent(self._uid)})
        for _ in range(MOST_STEPS):
            facts = self._gatherer.facts(run, site, status, self._generation, self._results)
            self._seen = facts.stages
            plan = decide(facts)
            mine = [action for action in plan.actions if isinstance(action, Resolve | LoadResult)]
            if not mine:
                return plan.status, list(plan.actions)
            status = plan.status
            for action in mine:
                status = self._inward(action, run, site, status)
        raise RuntimeError(f"run {self._name}: no decision within {MOST_STEPS} steps")

    def _inward(self, action: Resolve | LoadResult, run: RunSpec, site: Site, status: RunStatus) -> RunStatus:
        """Freeze a stage's inputs, or read its result."""
        stage = next(item for item in run.spec.stages if item.name == action.stage)
        known = status.stage_of(stage.name)
        assert known is not None
        if isinstance(action, LoadResult):
            self._results[stage.name] = load_result(site.store, self._name, stage.name, known.key)
            return status
        outputs = {item.name: item.outputs for item in status.stages if item.state is RunState.DONE}
        try:
            settled = resolve_stage(stage, run.spec.stages, run.spec.seed, site.store, outputs)
            image = current_digest(stage, site.cluster)
            if KINDS[stage.kind].service:
                release = shared_name(stage, settled.inputs["model"], image, run.spec.seed, site.cluster, site.config)
            else:
                release = release_name(self._name, stage.name)
                self._results[stage.name] = load_result(site.store, self._name, stage.name, settled.key)
            frozen = {"key": settled.key, "inputs": settled.inputs, "release": release, "image_digest": image}
            changed = known.model_copy(update=frozen)
        except HubUnreachable:
            raise
        except (ConfigError, ArtifactNotFound, DigestMismatch) as error:
            changed = known.model_copy(
                update={"state": RunState.FAILED, "reason": Reason.INVALID, "message": str(error), "ended": self._now}
            )
        stages = [changed if item.name == stage.name else item for item in status.stages]
        return status.model_copy(update={"stages": stages})

    def _applier(self, run: RunSpec, site: Site, status: RunStatus) -> Applier:
        objects = Objects(self._all._helm, site.cluster, site.config, self._meta, run.spec, revision_of(self._body))
        return Applier(self._client, self._cache, objects, run.spec, status, self._meta)

    def _record(self, run: RunSpec, site: Site, before: RunStatus, status: RunStatus) -> None:
        now = hash(status.model_dump_json())
        if now == self._memory.recorded:
            return
        known = load_record(site.store, self._name)
        record = record_of(known or self._all.base_record(self._body, run), run.spec, status, self._memory.facts)
        if record != known:
            # The record last: while it says less than the status, all of this is done again.
            exporter = self._all._exporter
            keep_spans(site.store, exporter, self._namespace, self._name, self._uid, before, status)
            save_record(site.store, record)
        self._memory.recorded = now

    def _write(self, status: RunStatus) -> bool:
        """Write the status where it changed; False where somebody else has written meanwhile."""
        if status == self._before:
            return True
        old, new = self._body.get("status") or {}, status.as_json()
        patch = {"metadata": {"resourceVersion": self._meta["resourceVersion"]}, "status": _replacing(old, new)}
        try:
            written = self._client.patch("EditRun", self._namespace, self._name, patch, "status")
        except RequestRefused as error:
            if error.status == 409:
                return False
            raise
        if written is None:
            self._cache.put_run(self._body, gone=True)  # deleted while no watch could tell
            return False
        self._cache.put_run(written, gone=False)
        self._say(changes(self._before, status))
        if status.state is not self._before.state:
            self._all._notifier.tell(cloud_event(written["metadata"], status, self._now))
        retried = sum(stage.failures for stage in status.stages) - sum(stage.failures for stage in self._before.stages)
        if retried > 0:
            RETRIES.labels("attempt").inc(retried)
        self._body, self._meta, self._before = written, written["metadata"], status
        return True

    def _say(self, events: Iterable[Object]) -> None:
        for event in events:
            involved = {
                "apiVersion": self._body["apiVersion"],
                "kind": self._body["kind"],
                "name": self._name,
                "namespace": self._namespace,
                "uid": self._uid,
            }
            meta = {"generateName": f"{self._name}.", "namespace": self._namespace}
            try:
                self._client.create("Event", self._namespace, {**event, "metadata": meta, "involvedObject": involved})
            except (RequestRefused, ClusterUnreachable):
                return  # An event is a courtesy: a namespace that takes none, or not now, does not stop a run.


def _replacing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch that turns ``old`` into ``new``."""
    return {**{key: None for key in old if key not in new}, **new}
