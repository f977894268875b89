"""One stage from a laptop to the cluster: values, frozen inputs, a record in the bucket, a checked and installed release."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.artifacts import ArtifactStore
from editr1.config.chart import StageValues
from editr1.config.chart_reward import RewardValues
from editr1.config.chart_training import GrpoValues, TrainingValues
from editr1.config.loader import ConfigError, read_yaml, validate, with_overrides
from editr1.config.merge import deep_merge
from editr1.config.store import StoreConfig
from editr1.launch.execute import git_revision, machine, versions
from editr1.launch.kubernetes.connect import Connection, cluster_store, store_config
from editr1.launch.kubernetes.helm import Object, chart_version, image_of
from editr1.launch.kubernetes.registry import with_digest
from editr1.launch.kubernetes.state import Phase, state_of
from editr1.launch.kubernetes.values import (
    MODELS,
    chart_of,
    check_release,
    checked,
    service_url,
    shared_values,
)
from editr1.runs.job import StageJob
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import RunRecord, StageRecord, State, load_record, record_key, save_record
from editr1.runs.resolve import resolve_job

PATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Submission:
    """What would be, or was, sent. ``objects`` are exactly the chart's."""

    kind: Kind
    name: str
    values: Mapping[str, Any]
    objects: list[Object]
    job: StageJob
    joined: bool = False
    """The same job runs already under this name; nothing was sent."""


def read_values(
    kind: Kind, file: Path | None, overrides: Sequence[str], connection: Connection, name: str
) -> dict[str, Any]:
    """Chart values: those of the cluster's settings, then the file, then ``--set``, checked. Raises ConfigError."""
    values = shared_values(connection.config, kind, name)
    values = deep_merge(values, read_yaml(file) if file else {})
    values = with_overrides(values, overrides)
    return checked(kind, values, str(file or f"editr1 submit {chart_of(kind)}"))


def prepare(
    kind: Kind,
    name: str,
    values: Mapping[str, Any],
    connection: Connection,
    *,
    traceparent: str | None,
    upload: bool = True,
) -> Submission:
    """Freeze inputs to digests and render; starts nothing. Uploads shipped checkpoints that the inputs name, if it may.

    Raises:
        ConfigError: a required input or the store is missing, a name is too long, or the chart refuses the values.
        StoreError: the bucket cannot be used.
    """
    check_release(name)
    model = validate(MODELS[kind], values, where=name)
    where = store_config(connection.config, model.store.url)
    store = cluster_store(connection.config, where.url)
    job = resolve_job(_job(kind, name, model, where, connection.api.namespace), store, upload=upload)
    frozen: dict[str, Any] = {
        "run": job.run,
        "stage": job.stage,
        "key": job.key,
        "inputs": job.inputs,
        "config": job.config,
    }
    frozen |= {"gitRevision": job.git_revision, "store": {"url": where.url}}
    if traceparent:
        frozen["telemetry"] = {"traceparent": traceparent}
    full = deep_merge(values, frozen)
    if connection.config.resolve_images:
        full = with_digest(full, chart_version(chart_of(kind)))
    return Submission(
        kind, name, full, connection.helm.render(chart_of(kind), name, connection.api.namespace, full), job
    )


def submit(submission: Submission, connection: Connection, command: str) -> Submission:
    """Write the record, have the server check every object, install.

    The same job under the same name is joined; another job under that name is refused.

    Raises:
        ConfigError: the name is taken, the server refuses an object, Helm fails.
    """
    name, job, api = submission.name, submission.job, connection.api
    store = cluster_store(connection.config, job.store.url)
    known = load_record(store, job.run)
    stage = known.stages.get(job.stage) if known else None
    if name in connection.helm.releases(api.target):
        if stage is not None and stage.key == job.key and state_of(api.release(name)).phase is not Phase.MISSING:
            return Submission(submission.kind, name, submission.values, submission.objects, job, joined=True)
        raise ConfigError(
            f"release {name!r} is there already and runs something else; choose another name, or editr1 cancel {name}"
        )
    api.dry_run(submission.objects)
    _freeze_record(store, submission, command, known)
    connection.helm.install(chart_of(submission.kind), name, api.target, submission.values)
    return submission


def keep_spans(connection: Connection, job: StageJob, file: Path) -> None:
    """Put the submitter's own spans into the run's record, beside those of its pods."""
    if file.is_file():
        store = cluster_store(connection.config, job.store.url)
        store.put_record(f"runs/{job.run}/spans/submit-{job.stage}.jsonl", file.read_bytes())


def _job(kind: Kind, name: str, model: StageValues, store: StoreConfig, namespace: str) -> StageJob:
    assert isinstance(model, TrainingValues | RewardValues)
    missing = [item.name for item in KINDS[kind].inputs if item.required and item.name not in model.inputs]
    if missing:
        raise ConfigError("\n".join(f"{name}: inputs.{item}: missing; a {kind} stage needs it" for item in missing))
    if faults := KINDS[kind].rule(model.inputs):
        raise ConfigError("\n".join(f"{name}: inputs: {fault}" for fault in faults))
    urls, digest = [], None
    if isinstance(model, GrpoValues):
        urls = [service_url(model.reward.release, namespace)] if model.reward.release else list(model.reward.urls)
        digest = model.reward.digest or None
        if not urls:
            raise ConfigError(f"{name}: reward: set reward.release or reward.urls")
    config: Any = getattr(model, "config")  # noqa: B009
    return StageJob(
        run=model.run or name,
        stage=model.stage or str(kind),
        kind=kind,
        key=model.key,
        seed=model.seed,
        store=store,
        inputs=dict(model.inputs),
        reward_urls=urls,
        reward_digest=digest,
        config=config.model_dump(mode="json", exclude_unset=True),
        workdir=Path("/work"),
        git_revision=git_revision(),
    )


def _freeze_record(store: ArtifactStore, submission: Submission, command: str, known: RunRecord | None) -> None:
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
    record.stages[job.stage] = StageRecord(
        name=job.stage,
        kind=str(job.kind),
        key=job.key,
        state=State.RUNNING,
        inputs=job.inputs,
        config=job.config,
        release=submission.name,
        image=image_of(submission.objects),
        chart=f"{chart_of(job.kind)} {chart_version(chart_of(job.kind))}",
    )
    save_record(store, record)
    patch = _patch()
    if patch:
        store.put_record(record_key(job.run).replace("record.json", "patch.diff"), patch)


def _patch() -> bytes:
    """What the working tree differs by from its revision; empty for a clean one, outside a checkout, or above 4 MiB."""
    here = Path(__file__).resolve().parents[3]
    try:
        done = subprocess.run(["git", "-C", str(here), "diff", "HEAD"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 and len(done.stdout) <= PATCH_BYTES else b""
