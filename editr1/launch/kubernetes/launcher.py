"""The Kubernetes backend: install each stage as a Helm release, and read its progress from the artifact store."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_fixed

from editr1.artifacts import ArtifactStore, StoreError
from editr1.artifacts.outage import OutageTolerance
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.errors import ExitCode
from editr1.launch.job_builder import chart_values
from editr1.launch.kubernetes.errors import ClusterUnreachable
from editr1.launch.kubernetes.helm import Helm, Object, chart_version, image_of
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.registry import with_digest
from editr1.launch.kubernetes.release_objects import remove_with_job
from editr1.launch.kubernetes.state import Phase, StageState, pods_left, state_of
from editr1.launch.kubernetes.values import chart_of, release_name, service_url
from editr1.launch.kubernetes.views import PodView
from editr1.launch.launcher import Observation
from editr1.runs.job import StageJob
from editr1.runs.kinds import KINDS
from editr1.runs.live import LiveFiles
from editr1.runs.spec import StageSpec

POLL_SECONDS = 1.0
PROGRESS_SECONDS = 2.0
SUBMIT_SECONDS = 120.0
log = logging.getLogger("editr1.runs")
_ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.MISSING)


@dataclass(frozen=True)
class ReleaseRequest:
    """A Helm release to install. ``objects`` are the Kubernetes objects that the chart renders from ``values``."""

    chart: str
    release: str
    namespace: str
    values: Mapping[str, Any]
    objects: list[Object]
    job: StageJob


@dataclass
class ReleaseHandle:
    """An installed release that runs the job of ``request``. An earlier command may have installed it."""

    request: ReleaseRequest
    files: LiveFiles
    polled: float = 0.0
    progress_read: float = 0.0
    last: Observation = field(default_factory=lambda: Observation(running=True))
    shown: tuple[str, int] | None = None
    spans_saved: bool = False
    tolerance: OutageTolerance = field(default_factory=OutageTolerance)


class KubernetesLauncher:
    """Launcher that runs each stage as a release of its Helm chart.

    ``store`` is the artifact store that the pods use, as opened on this machine. The OpenTelemetry spans of the pods are appended to the
    local file ``spans``.
    """

    def __init__(
        self, cluster: ClusterConfig, api: ClusterNamespace, helm: Helm, store: ArtifactStore, spans: Path
    ) -> None:
        self._cluster, self._api, self._helm, self._store, self._spans = cluster, api, helm, store, spans

    def render(self, job: StageJob, stage: StageSpec, traceparent: str | None) -> ReleaseRequest:
        """Return the release that ``submit`` would install."""
        chart, release = chart_of(job.kind), release_name(job.run, job.stage)
        values = chart_values(job, self._cluster, stage=stage, traceparent=traceparent)
        if self._cluster.resolve_images:
            values = with_digest(values, chart_version(chart))
        objects = self._helm.render(chart, release, self._api.namespace, values)
        return ReleaseRequest(chart, release, self._api.namespace, values, objects, job)

    def record_fields(self, request: ReleaseRequest) -> Mapping[str, str]:
        """Return the release name, the container image and the chart, for the record of the stage."""
        chart = f"{request.chart} {chart_version(request.chart)}"
        return {"release": request.release, "image": image_of(request.objects), "chart": chart}

    def submit(self, request: ReleaseRequest) -> ReleaseHandle:
        """Install the release.

        If a release with this name already runs the same job, it keeps running, and its handle is returned. If the
        release runs a different job of the same stage, it is replaced. If the API server is unreachable, the
        installation is retried for up to two minutes.

        Raises:
            ConfigError: a release with this name exists and does not belong to this stage of this run.
            ClusterUnreachable: the API server did not respond for two minutes.
        """

        def log_retry(state: RetryCallState) -> None:
            assert state.outcome is not None
            log.warning("cannot install release %s: %s; retrying", request.release, state.outcome.exception())

        retrying = Retrying(
            retry=retry_if_exception_type(ClusterUnreachable),
            wait=wait_fixed(PROGRESS_SECONDS),
            stop=stop_before_delay(SUBMIT_SECONDS),
            before_sleep=log_retry,
            reraise=True,
        )
        return retrying(self._submit, request)

    def _submit(self, request: ReleaseRequest) -> ReleaseHandle:
        job = request.job
        handle = ReleaseHandle(request, LiveFiles(self._store, job.run, job.stage, job.key))
        chart = self._helm.chart_of_release(request.release, self._api.target)
        if chart is not None:
            installed = self._installed_job(request.release)
            incomplete = not installed and chart.startswith(
                f"{request.chart}-"
            )  # The installation of the release was interrupted.
            if not incomplete and (installed.get("run"), installed.get("stage")) != (job.run, job.stage):
                raise ConfigError(
                    f"release {request.release!r} already exists and does not belong to stage {job.stage} of run"
                    f" {job.run}; rename the run, or remove the release with: helm uninstall {request.release}"
                )
            state = state_of(self._api.release(request.release))
            if installed.get("key") == job.key and state.phase not in _ENDED:
                return handle
            self.cancel(handle, 30)
        self._api.dry_run(request.objects)
        self._helm.install(request.chart, request.release, self._api.target, request.values)
        remove_with_job(self._api, request.release, request.objects)
        return handle

    def observe(self, handle: ReleaseHandle) -> Observation:
        """Return the state of the release and its new progress lines. At most one request per second is sent to the API server.

        While the API server does not respond, the last known state is returned. If the outage lasts longer than
        :class:`OutageTolerance` allows, ClusterUnreachable is raised.
        """
        now = time.monotonic()
        if now - handle.polled >= POLL_SECONDS and handle.last.running:
            handle.polled = now
            try:
                release = self._api.release(handle.request.release)
            except ClusterUnreachable as error:
                handle.last = replace(handle.last, note=handle.tolerance.record(error))
            else:
                handle.tolerance.answered()
                handle.last = self._observation(handle, state_of(release), release.pods)
        progress = self._progress(handle)
        if not handle.last.running:
            self._save_spans(handle)
        last = handle.last
        return Observation(last.running, last.exit_code, last.reason, last.ready_urls, progress, last.note)

    def cancel(self, handle: ReleaseHandle, grace: float) -> None:
        """Uninstall the release.

        Its pods receive SIGTERM. Pods that still exist after ``grace`` seconds are killed.
        """
        release = handle.request.release
        self._helm.uninstall(release, self._api.target)
        end = time.monotonic() + grace
        while self._api.pods(release):
            if time.monotonic() > end:
                self._api.delete_pods(release)
                break
            time.sleep(POLL_SECONDS)
        self._save_spans(handle)
        handle.last = Observation(False, ExitCode.TERMINATED, "stopped")

    def _observation(self, handle: ReleaseHandle, state: StageState, pods: Collection[PodView] = ()) -> Observation:
        if state.phase is Phase.SUCCEEDED and pods_left(pods, time.time()):
            return Observation(True, note="the job succeeded; waiting for its remaining pods to exit")
        if state.phase is Phase.SUCCEEDED:
            return Observation(False, ExitCode.DONE)
        if state.phase is Phase.FAILED:
            return Observation(False, state.exit_code or ExitCode.UNEXPECTED, self._failure(handle, state))
        if state.phase is Phase.MISSING:
            return Observation(False, ExitCode.KILLED, state.reason)
        urls: tuple[str, ...] = ()
        if state.phase is Phase.READY and KINDS[handle.request.job.kind].service:
            urls = (service_url(handle.request.release, self._api.namespace),)
        return Observation(True, ready_urls=urls, note=state.reason)

    def _failure(self, handle: ReleaseHandle, state: StageState) -> str:
        """Return the reason why the stage failed, followed by the stage's last error message in the artifact store, if there is one."""
        try:
            ended = [item for item in handle.files.attempts() if item.reason]
        except StoreError:
            ended = []
        return f"{state.reason}: {ended[-1].reason}" if ended else state.reason

    def _progress(self, handle: ReleaseHandle) -> list[Mapping[str, Any]]:
        now = time.monotonic()
        if now - handle.progress_read < PROGRESS_SECONDS and handle.last.running:
            return []
        handle.progress_read = now
        try:
            live = handle.files.progress()
        except StoreError:
            return []
        if live is None or handle.shown == (live.phase, live.done):
            return []
        handle.shown = (live.phase, live.done)
        return [live.model_dump()]

    def _installed_job(self, release: str) -> Mapping[str, Any]:
        """Return the parsed job file of an installed release. The result is empty if there is no valid job file."""
        try:
            job = json.loads(self._api.job_file(release) or "{}")
        except ValueError:
            return {}
        return job if isinstance(job, dict) else {}

    def _save_spans(self, handle: ReleaseHandle) -> None:
        """Append the spans of the pods to the local file of spans. Further calls for the same release do nothing."""
        if handle.spans_saved:
            return
        handle.spans_saved = True
        try:
            spans = handle.files.spans()
        except StoreError:
            return
        with self._spans.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(item) + "\n" for item in spans)
