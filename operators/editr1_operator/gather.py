"""Gather what is decided on: from the watches' cache, and where that is not enough from the API server and the store."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from editr1.artifacts import ArtifactStore, StoreError
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.parse import pod_view
from editr1.launch.kubernetes.run_status import RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.views import EventView, ReleaseView
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.live import LiveFiles
from editr1.runs.record import StageResult
from editr1.runs.spec import RunSpec, StageSpec
from editr1_operator.cache import Cache, Held
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.observed import ObservedRun, ObservedStage
from editr1_operator.settings import Site

EVENTS_AFTER_SECONDS = 2.0
EVENTS_AGE_SECONDS = 5.0
Progress = dict[str, tuple[float, str]]
"""When a stage's progress was read, and what it was; all of it can be lost."""


class Gatherer:
    """Facts of one run at one moment."""

    def __init__(
        self,
        client: KubernetesClient,
        cache: Cache,
        happened: NamespaceEvents,
        known: Progress,
        namespace: str,
        uid: str,
        now: float,
        progress_s: float,
    ) -> None:
        self._client, self._cache, self._happened, self._known_progress = client, cache, happened, known
        self._namespace, self._uid, self._now, self._progress_s = namespace, uid, now, progress_s

    def facts(
        self,
        run: RunSpec,
        site: Site,
        status: RunStatus,
        generation: int,
        results: Mapping[str, StageResult | None],
    ) -> ObservedRun:
        """``results`` holds what was read of the stages' results in this look. Raises StoreError, ClusterUnreachable."""
        self._run, self._results = run.metadata.name, results
        stages = {
            stage.name: self._stage_facts(stage, site, status.stage_of(stage.name) or StageStatus(name=stage.name))
            for stage in run.spec.stages
        }
        return ObservedRun(run.metadata.name, run.spec, status, generation, self._now, stages)

    def _stage_facts(self, stage: StageSpec, site: Site, known: StageStatus) -> ObservedStage:
        name = known.release
        held = self._held(known) if name else None
        result, read = self._results.get(stage.name), stage.name in self._results
        if held is None:
            return ObservedStage(ReleaseView(name, self._namespace), result=result, result_read=read)
        pods = self._cache.pods(self._namespace, name)
        if held.view.true_condition("Failed") and not any(pod.phase == "Failed" for pod in pods):
            # The job's end was told before the pod's, which has the exit code.
            selector = f"app.kubernetes.io/instance={name}"
            pods = tuple(pod_view(item) for item in self._client.find("Pod", self._namespace, labelSelector=selector))
        view = ReleaseView(name, self._namespace, held.view, pods, self._events(known, held, bool(pods)))
        return ObservedStage(
            view,
            uid=held.uid,
            attempt=held.attempt,
            terminating=held.terminating,
            owned=self._uid in held.owners,
            progress=self._progress(stage, site.store, known),
            last_error=self._last_error(stage, site.store, known) if held.view.true_condition("Failed") else "",
            result=result,
            result_read=read,
        )

    def _held(self, known: StageStatus) -> Held | None:
        held = self._cache.job(self._namespace, known.release)
        kind = "Deployment" if KINDS[Kind(known.kind)].service else "PyTorchJob"
        if held is None and known.job_uid and not known.over:
            # The watch may not have told of it yet: before a job counts as gone, the API server is asked.
            body = self._client.get(kind, self._namespace, known.release)
            if body is not None:
                self._cache.put_job({"kind": kind, **body}, gone=False)
                held = self._cache.job(self._namespace, known.release)
        return held

    def _events(self, known: StageStatus, held: Held, has_pods: bool) -> tuple[EventView, ...]:
        """Events of a job that has no pods for seconds; what pods say themselves is known without."""
        if has_pods or known.over or held.view.suspended or self._now - held.view.created < EVENTS_AFTER_SECONDS:
            return ()
        return self._happened.of(self._namespace, (known.release,), EVENTS_AGE_SECONDS)

    def _progress(self, stage: StageSpec, store: ArtifactStore, known: StageStatus) -> str:
        if known.state is not RunState.RUNNING or KINDS[stage.kind].service:
            return ""
        asked, text = self._known_progress.get(stage.name, (0.0, ""))
        if self._now - asked > self._progress_s:
            try:
                live = LiveFiles(store, self._run, stage.name, known.key).progress()
            except (StoreError, ValidationError):
                live = None  # what is only shown stops no decision
            text = f"{live.phase} {live.done}/{live.total}" if live else text
            self._known_progress[stage.name] = (self._now, text)
        return text

    def _last_error(self, stage: StageSpec, store: ArtifactStore, known: StageStatus) -> str:
        try:
            ended = [item for item in LiveFiles(store, self._run, stage.name, known.key).attempts() if item.reason]
        except (StoreError, ValidationError):
            return ""
        return ended[-1].reason if ended else ""
