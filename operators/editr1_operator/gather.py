"""Collect the state of a run, on which the next decision is based.

The run's jobs and pods are read from the cache or the API server, and its progress and last error from the artifact store.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from editr1.artifacts import StoreError
from editr1.launch.kubernetes.client import KubernetesClient
from editr1.launch.kubernetes.parse import pod_view
from editr1.launch.kubernetes.resources import INSTANCE
from editr1.launch.kubernetes.run_status import RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.views import EventView, PodView, ReleaseView
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.live import LiveFiles
from editr1.runs.record import StageResult
from editr1.runs.spec import RunSpec, StageSpec
from editr1_operator.cache import Cache, CachedJob
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.observed import ObservedRun, ObservedStage
from editr1_operator.settings import NamespaceSettings

EVENTS_DELAY_SECONDS = 2.0
"""Minimum age in seconds of a job without pods before its events are read."""
EVENTS_MAX_AGE_SECONDS = 5.0
"""Maximum age in seconds of a cached list of events."""
Progress = dict[str, tuple[float, str]]
"""Progress of each stage by stage name: the time at which it was last read (seconds since the epoch), and its text.
"""


class Gatherer:
    """Collector of the state of one run at one point in time."""

    def __init__(
        self,
        client: KubernetesClient,
        cache: Cache,
        namespace_events: NamespaceEvents,
        progress: Progress,
        namespace: str,
        uid: str,
        now: float,
        progress_s: float,
    ) -> None:
        """Prepare to observe a run.

        Args:
            client: Client for objects that are not in the cache.
            cache: Cached jobs and pods.
            namespace_events: Cached Kubernetes events.
            progress: Progress of the run's stages from earlier observations; it is updated.
            namespace: Namespace of the run.
            uid: UID of the run.
            now: Time of the observation in seconds since the epoch.
            progress_s: Minimum time in seconds between two reads of a stage's progress from the artifact store.
        """
        self._client, self._cache = client, cache
        self._namespace_events, self._known_progress = namespace_events, progress
        self._namespace, self._uid, self._now, self._progress_s = namespace, uid, now, progress_s

    def observe(
        self,
        run: RunSpec,
        settings: NamespaceSettings,
        status: RunStatus,
        generation: int,
        results: Mapping[str, StageResult | None],
    ) -> ObservedRun:
        """Return the current state of the run.

        Args:
            run: Specification of the run.
            settings: Settings and artifact store of the run's namespace.
            status: Last status of the run.
            generation: Generation of the specification.
            results: Results that this reconciliation has already read, by stage name.

        Raises:
            ClusterUnreachable: the API server does not respond.
        """
        stages = {}
        for stage in run.spec.stages:
            known = status.stage_of(stage.name) or StageStatus(name=stage.name)
            files = LiveFiles(settings.store, run.metadata.name, stage.name, known.key)
            result, was_read = results.get(stage.name), stage.name in results
            stages[stage.name] = self._observe_stage(stage, known, files, result, was_read)
        return ObservedRun(run.metadata.name, run.spec, status, generation, self._now, stages)

    def _observe_stage(
        self, stage: StageSpec, known: StageStatus, files: LiveFiles, result: StageResult | None, result_read: bool
    ) -> ObservedStage:
        name = known.release
        job = self._job(known) if name else None
        if job is None:
            return ObservedStage(ReleaseView(name, self._namespace), result=result, result_read=result_read)
        failed = job.view.true_condition("Failed") is not None
        pods = self._pods(name, failed)
        return ObservedStage(
            ReleaseView(name, self._namespace, job.view, pods, self._events(known, job, bool(pods))),
            uid=job.uid,
            attempt=job.attempt,
            terminating=job.terminating,
            owned=self._uid in job.owners,
            progress=self._progress(stage, files, known),
            last_error=_last_error(files) if failed else "",
            result=result,
            result_read=result_read,
        )

    def _job(self, known: StageStatus) -> CachedJob | None:
        job = self._cache.job(self._namespace, known.release)
        if job is not None or not known.job_uid or known.over:
            return job
        # The watch may not have reported the job yet, so the API server is queried before the job is treated as
        # deleted.
        kind = "Deployment" if KINDS[Kind(known.kind)].service else "PyTorchJob"
        body = self._client.get(kind, self._namespace, known.release)
        if body is not None:
            self._cache.put_job({"kind": kind, **body}, deleted=False)
        return self._cache.job(self._namespace, known.release)

    def _pods(self, release: str, failed: bool) -> tuple[PodView, ...]:
        pods = self._cache.pods(self._namespace, release)
        if not failed or any(pod.phase == "Failed" for pod in pods):
            return pods
        # The watch has not reported the failed pod yet, whose status contains the exit code.
        found = self._client.find("Pod", self._namespace, labelSelector=f"{INSTANCE}={release}")
        return tuple(pod_view(item) for item in found)

    def _events(self, known: StageStatus, job: CachedJob, has_pods: bool) -> tuple[EventView, ...]:
        """Return the events that explain why a job has no pods. If the job has pods, the result is empty."""
        if has_pods or known.over or job.view.suspended or self._now - job.view.created < EVENTS_DELAY_SECONDS:
            return ()
        return self._namespace_events.of(self._namespace, (known.release,), EVENTS_MAX_AGE_SECONDS)

    def _progress(self, stage: StageSpec, files: LiveFiles, known: StageStatus) -> str:
        if known.state is not RunState.RUNNING or KINDS[stage.kind].service:
            return ""
        read_at, text = self._known_progress.get(stage.name, (0.0, ""))
        if self._now - read_at > self._progress_s:
            try:
                live = files.progress()
            except (StoreError, ValidationError):
                live = None  # No decision depends on the progress.
            text = f"{live.phase} {live.done}/{live.total}" if live else text
            self._known_progress[stage.name] = (self._now, text)
        return text


def _last_error(files: LiveFiles) -> str:
    try:
        ended = [item for item in files.attempts() if item.reason]
    except (StoreError, ValidationError):
        return ""
    return ended[-1].reason if ended else ""
