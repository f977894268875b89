"""Collect what ``editr1 status``, ``list`` and ``explain`` show about the stages on a cluster.

The state of a stage is read from the cluster. Its progress and attempts are read from the files that its pods write to the
artifact store while they run ("live files").
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from editr1.artifacts import ArtifactStore, StoreError
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.connect import Connection, cluster_store
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.state import Phase, StageState, state_of
from editr1.launch.kubernetes.views import JobView, ReleaseView
from editr1.runs.live import LiveFiles, LiveProgress, PodAttempt


@dataclass(frozen=True)
class StageOverview:
    """State, progress and attempts of the stage that a release runs.

    ``note`` is an error message if the artifact store could not be read, else empty.
    """

    job: JobView
    release: ReleaseView
    state: StageState
    progress: LiveProgress | None = None
    attempts: tuple[PodAttempt, ...] = ()
    files: LiveFiles | None = None
    note: str = ""


def jobs_of(connection: Connection, name: str) -> list[JobView]:
    """Return the jobs and services of the run ``name``, or of the release ``name``. Raises ConfigError if neither exists."""
    api = connection.api
    found = api.jobs(name) or [job for job in api.jobs() if job.name == name]
    if not found:
        raise no_such_run(api, name)
    return found


def no_such_run(api: ClusterNamespace, name: str) -> ConfigError:
    """Return the exception for a run or release that does not exist. Its message lists the runs in the namespace."""
    runs = ", ".join(sorted({job.run for job in api.jobs()})) or "none"
    return ConfigError(f"no run or release {name!r} in namespace {api.namespace}; existing runs: {runs}")


def overview(connection: Connection, job: JobView) -> StageOverview:
    """Return the state, progress and attempts of the stage that a job or service runs."""
    release = connection.api.release(job.name)
    job = release.job or job
    state = state_of(release)
    try:
        files = live_files(connection, job)
        progress = files.progress() if files else None
        attempts = tuple(files.attempts()) if files else ()
    except (StoreError, ConfigError) as error:
        return StageOverview(job, release, state, note=str(error))
    return StageOverview(job, release, state, progress, attempts, files)


def live_files(connection: Connection, job: JobView) -> LiveFiles | None:
    """Return access to the live files of the stage that a job runs; None before its first attempt.

    Raises:
        StoreError, ConfigError: the artifact store cannot be read or is not configured.
    """
    text = connection.api.job_file(job.name)
    if text is None:
        return None
    job_file = json.loads(text)
    store = cluster_store(connection.config, job_file["store"]["url"])
    key = job_file["key"] or _newest_key(store, job_file["run"], job_file["stage"])
    return LiveFiles(store, job_file["run"], job_file["stage"], key) if key else None


def explain(stage: StageOverview) -> str:
    """Return a sentence that describes what the stage is doing, or why it is not running."""
    state, name = stage.state, stage.job.name
    if state.phase is Phase.FAILED:
        last_error = next((item.reason for item in reversed(stage.attempts) if item.reason), "")
        return f"{name} failed: {state.reason}" + (f"; its last error: {last_error}" if last_error else "")
    if state.reason:
        return f"{name} is {state.phase}: {state.reason}"
    if state.phase is Phase.RUNNING and stage.progress is not None:
        at = stage.progress
        return f"{name} is running: {at.phase} {at.done}/{at.total}"
    return f"{name} is {state.phase}"


def _newest_key(store: ArtifactStore, run: str, stage: str) -> str:
    """Return the key of a stage in its newest attempt; empty before the first attempt.

    The key is found among the live files in the store. If a release was installed with the helm command, its job file contains
    no key, because the pod computes the key.
    """
    prefix = f"runs/{run}/stages/{stage}/"
    keys = {key.removeprefix(prefix).split("/")[0] for key in store.list_records(prefix)}
    started = {
        key: max((item.started for item in LiveFiles(store, run, stage, key).attempts()), default=0.0) for key in keys
    }
    return max(started, key=lambda key: started[key], default="")
