"""Submit a single stage to a cluster, for ``editr1 submit``.

A submission reads the values of the stage's chart, resolves its inputs, lets the API server validate the objects, and installs
the release.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.artifacts import ArtifactStore
from editr1.config.chart_reward import RewardValues
from editr1.config.chart_training import GrpoValues, TrainingValues
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError, load_settings, validate
from editr1.launch.checkout import git_patch, git_revision
from editr1.launch.job_builder import JobContext, RewardEndpoints, build_job, chart_values
from editr1.launch.kubernetes.connect import Connection, cluster_store, store_config
from editr1.launch.kubernetes.errors import ClusterError
from editr1.launch.kubernetes.helm import Helm, Object, chart_version, image_of
from editr1.launch.kubernetes.registry import with_digest
from editr1.launch.kubernetes.release_objects import remove_with_job
from editr1.launch.kubernetes.reward_model import with_reward
from editr1.launch.kubernetes.state import Phase, state_of
from editr1.launch.kubernetes.values import MODELS, chart_of, check_inputs, check_release, service_url, shared_values
from editr1.launch.origin import machine, versions
from editr1.runs.job import StageJob
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.name_in_use import NameInUse, stage_differences
from editr1.runs.partial import is_partial, result_to_reuse
from editr1.runs.record import (
    RunRecord,
    StageRecord,
    State,
    load_complete_result,
    load_record,
    record_key,
    save_record,
    submitted_stage,
)
from editr1.runs.resolve import ResolvedStage, resolve_job
from editr1.runs.spec import StageSpec

UNINSTALL_SECONDS = 60.0


@dataclass(frozen=True)
class Submission:
    """A stage that is ready to be submitted, or that was submitted. ``objects`` are the rendered objects of its release."""

    kind: Kind
    name: str
    values: Mapping[str, Any]
    objects: list[Object]
    job: StageJob
    attached: bool = False
    """True if a release with this name was already running the same job, so that nothing was installed."""


def read_values(
    kind: Kind, name: str, cluster: ClusterConfig, file: Path | None, overrides: Sequence[str], env: Mapping[str, str]
) -> dict[str, Any]:
    """Return the chart values of a stage. Raises ConfigError.

    They are read from the cluster settings, ``file``, ``env`` and ``overrides``. A later source overrides an earlier one. The
    variables ``EDITR1_<KIND>__...`` in ``env`` set fields of the chart value ``config``. The command ``editr1 <kind>`` uses the same
    variables for its settings.
    """
    where = str(file or f"values of {chart_of(kind)}")

    def load(stage: str) -> TrainingValues | RewardValues:
        model = load_settings(
            MODELS[kind],
            values=shared_values(cluster, kind, stage),
            file=file,
            env=env,
            env_prefix=f"EDITR1_{kind.upper()}__",
            env_section=("config",),
            overrides=overrides,
            where=where,
        )
        assert isinstance(model, TrainingValues | RewardValues)
        return model

    model = load(name)
    if model.stage and model.stage != name:  # The cluster settings may contain values for this stage name.
        model = load(model.stage)
    values = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    check_inputs(kind, values, where)
    return values


def prepare(
    kind: Kind,
    name: str,
    values: Mapping[str, Any],
    connection: Connection,
    *,
    traceparent: str | None,
    upload: bool = True,
) -> Submission:
    """Resolve the inputs of a stage to digests, and render the objects of its release. Nothing is started.

    If ``upload`` is True, inputs that are checkpoints of this package (``builtin:``) are committed to the artifact store.
    Otherwise only their digests are computed.

    Raises:
        ConfigError: a required input or the store is missing, a name is too long, or the chart rejects the values.
        StoreError: the artifact store cannot be used.
    """
    cluster, namespace = connection.config, connection.api.namespace
    unresolved = job_of_values(kind, name, values, cluster, namespace)
    store = cluster_store(cluster, unresolved.store.url, wait=True)
    job = resolve_job(with_reward(unresolved, connection.api, store), store, upload=upload)
    full = chart_values(job, cluster, base=values, traceparent=traceparent)
    if cluster.resolve_images:
        full = with_digest(full, chart_version(chart_of(kind)))
    return Submission(kind, name, full, connection.helm.render(chart_of(kind), name, namespace, full), job)


def render(
    kind: Kind, name: str, values: Mapping[str, Any], cluster: ClusterConfig, namespace: str, helm: Helm
) -> list[Object]:
    """Return the objects of a stage's release. No request is sent to a cluster, store or registry. Raises ConfigError."""
    job = job_of_values(kind, name, values, cluster, namespace)
    return helm.render(chart_of(kind), name, namespace, chart_values(job, cluster, base=values))


def submit(submission: Submission, connection: Connection, command: str, *, replace: bool = False) -> Submission:
    """Let the API server validate all objects, write the record of the run, and install the release.

    If a release with this name already runs the same job, nothing is installed. If that job has ended with a partial
    result, its release is installed again (:mod:`editr1.runs.partial`). A release whose job no longer exists is
    replaced. With ``replace``, an existing record with different settings or inputs is replaced.

    Raises:
        ConfigError: a release with this name runs another job, the API server rejects an object, or Helm fails.
        NameInUse: the record of the stage has different settings or inputs, and ``replace`` is not set.
    """
    name, job, api = submission.name, submission.job, connection.api
    store = cluster_store(connection.config, job.store.url, wait=True)
    known = load_record(store, job.run, ignore_unreadable=replace)
    stage = known.stages.get(job.stage) if known else None
    if connection.helm.chart_of_release(name, api.target) is not None:
        phase = state_of(api.release(name)).phase
        if phase is not Phase.MISSING:  # A missing job was deleted, for example because its time to live had passed.
            if stage is None or stage.key != job.key:
                raise ConfigError(
                    f"release {name!r} already exists and runs another job;"
                    f" choose another --name, or cancel that job with: editr1 cancel {name}"
                )
            if phase is not Phase.SUCCEEDED or not _is_partial(store, job):
                return Submission(submission.kind, name, submission.values, submission.objects, job, attached=True)
        _uninstall(name, connection)
    if known and stage and stage.key and not replace:
        lines = stage_differences(stage, _stage_record(submission), (known.seed, job.seed))
        if stage.key != job.key and lines:
            raise NameInUse(job.run, lines, store.url)
    api.dry_run(submission.objects)
    result_to_reuse(store, job.run, job.stage, job.key)  # marks a partial result, so that the pod asks again
    _write_record(store, submission, command, known)
    connection.helm.install(chart_of(submission.kind), name, api.target, submission.values)
    remove_with_job(api, name, submission.objects)
    return submission


def save_spans(connection: Connection, job: StageJob, file: Path) -> None:
    """Copy the OpenTelemetry spans of a submission from ``file`` to the artifact store, next to the spans of the pods."""
    if file.is_file():
        store = cluster_store(connection.config, job.store.url)
        store.put_record(f"runs/{job.run}/spans/submit-{job.stage}.jsonl", file.read_bytes())


def job_of_values(kind: Kind, name: str, values: Mapping[str, Any], cluster: ClusterConfig, namespace: str) -> StageJob:
    """Return the job that the values of a chart describe. Its references to inputs are not resolved.

    Raises:
        ConfigError: a required input, the reward service or the store is missing, or a value is out of range.
    """
    check_release(name)
    model = validate(MODELS[kind], values, where=name)
    assert isinstance(model, TrainingValues | RewardValues)
    info = KINDS[kind]
    if missing := [item.name for item in info.inputs if item.required and item.name not in model.inputs]:
        raise ConfigError(
            "\n".join(
                f"{name}: inputs.{item}: missing; set this input, because a {kind} stage requires it"
                for item in missing
            )
        )
    if faults := info.rule(model.inputs):
        raise ConfigError("\n".join(f"{name}: inputs: {fault}" for fault in faults))
    config: Any = getattr(model, "config")  # noqa: B009
    settings = config.model_dump(mode="json", exclude_unset=True)
    stage = validate(
        StageSpec,
        {"name": model.stage or str(kind), "kind": kind, "inputs": model.inputs, "config": settings},
        where=name,
    )
    return build_job(
        stage,
        JobContext(
            run=model.run or name,
            seed=model.seed,
            store=store_config(cluster, model.store.url),
            git_revision=git_revision(),
        ),
        ResolvedStage(settings, dict(model.inputs), model.key) if model.key else None,
        _reward_endpoints(model, name, namespace) if isinstance(model, GrpoValues) else None,
    )


def _reward_endpoints(model: GrpoValues, name: str, namespace: str) -> RewardEndpoints:
    urls = (service_url(model.reward.release, namespace),) if model.reward.release else tuple(model.reward.urls)
    if not urls:
        raise ConfigError(f"{name}: reward: missing; set reward.release or reward.urls")
    return RewardEndpoints(urls, model.reward.digest or None)


def _is_partial(store: ArtifactStore, job: StageJob) -> bool:
    result = load_complete_result(store, job.run, job.stage, job.key)
    return result is not None and is_partial(result)


def _uninstall(name: str, connection: Connection) -> None:
    """Uninstall a release whose job has ended, and wait until its pods no longer exist."""
    connection.helm.uninstall(name, connection.api.target)
    end = time.monotonic() + UNINSTALL_SECONDS
    while connection.api.pods(name):
        if time.monotonic() > end:
            raise ClusterError(
                f"pods of release {name!r} still exist {UNINSTALL_SECONDS:.0f} s after it was uninstalled; repeat the command later"
            )
        time.sleep(1.0)


def _stage_record(submission: Submission) -> StageRecord:
    job = submission.job
    chart = chart_of(job.kind)
    image = image_of(submission.objects)
    return submitted_stage(job, submission.name, image=image, chart=f"{chart} {chart_version(chart)}")


def _write_record(store: ArtifactStore, submission: Submission, command: str, known: RunRecord | None) -> None:
    job = submission.job
    record = known or RunRecord(
        name=job.run,
        seed=job.seed,
        command=command,
        git_revision=job.git_revision,
        versions=versions(),
        machine=machine(),
        created=time.time(),
    )
    record.state = State.RUNNING
    record.stages[job.stage] = _stage_record(submission)
    save_record(store, record)
    if patch := git_patch():
        store.put_record(record_key(job.run).replace("record.json", "patch.diff"), patch)
