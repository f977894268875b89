"""The record of a run (states, attempts, and digests of inputs and outputs), and the store keys of the run's files."""

from __future__ import annotations

import json
import re
import time
from enum import StrEnum
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editr1.artifacts import ArtifactStore
from editr1.artifacts.reliable import read_again
from editr1.checksums import has_checksum, load_checked
from editr1.config.loader import ConfigError, explain
from editr1.errors import ExitCode
from editr1.runs.job import StageJob
from editr1.runs.stored import DamagedRecord, dump_stored, read_stored, warn_once

_NAME = re.compile(r"[A-Za-z0-9-]+")
"""Characters of run names. A name such as ``../other`` is not used in a path or in the key of a record."""


class State(StrEnum):
    """State of a run or of one of its stages."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Attempt(_Record):
    """One attempt of a stage. Times are in seconds since the epoch."""

    started: float
    ended: float | None = None
    exit_code: int | None = None
    reason: str = ""


class Missing(_Record):
    """Items without a usable model answer, which make a result partial. Empty if the result is complete."""

    causes: dict[str, int] = Field(default_factory=dict)
    """Number of items by step and cause, such as ``{"decompose: RequestRefused": 3}``."""
    total: int = 0
    """Total number of items in the steps of ``causes``."""
    asked: int = Field(default=1, ge=1)
    """Number of consecutive invocations of the stage that ended with the same causes."""
    accepted: bool = False
    """Whether a person has accepted the partial result (:func:`editr1.runs.partial.accept`)."""

    def __bool__(self) -> bool:
        return bool(self.causes)

    def sentence(self, stage: str, run: str = "") -> str:
        """Return one line that states which items are missing in the result of ``stage``, and what to do.

        ``run`` is the name of the run.
        """
        causes = ", ".join(f"{cause}: {number}" for cause, number in self.causes.items())
        what = f"{stage}: {sum(self.causes.values())} of {self.total} items have no usable model answer ({causes})"
        if self.accepted:
            return f"{what}; this result was accepted"
        command = f"editr1 runs accept {run} {stage}" if run else "editr1 runs accept"
        if self.asked == 1:
            return f"{what}; repeat the command to request them again, or accept the result with: {command}"
        return (
            f"{what}; they were requested in {self.asked} invocations with the same outcome; correct the cause and repeat the command,"
            f" or accept the result with: {command}"
        )

    def after(self, previous: Missing) -> Missing:
        """Return a copy whose ``asked`` continues the count of the previous invocation if it ended with the same causes."""
        return self.model_copy(update={"asked": previous.asked + 1}) if self.causes == previous.causes else self


class StageResult(_Record):
    """The result that a stage commits when it is done, stored under the stage's key."""

    key: str
    outputs: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    missing: Missing = Field(default_factory=Missing)
    """Items that a later invocation should request again (:mod:`editr1.runs.partial`). Other stages may use the outputs of
    a partial result."""
    asked_again: bool = False
    """Whether the stage was started again after this partial result, which its next result replaces."""


class StageRecord(_Record):
    """Record of one stage of a run. ``inputs`` and ``outputs`` map names to digests."""

    name: str
    kind: str
    key: str = ""
    state: State = State.PENDING
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    missing: Missing = Field(default_factory=Missing)
    reward: dict[str, Any] = Field(default_factory=dict)
    """Identity of the reward model (:class:`editr1.serving.identity.RewardIdentity`); empty if the stage uses none."""
    config: dict[str, Any] = Field(default_factory=dict)
    attempts: list[Attempt] = Field(default_factory=list)
    reason: str = ""
    release: str = ""
    """Name of the stage's Helm release on a cluster; empty if the stage runs as a local process."""
    image: str = ""
    """Container image of the stage on a cluster."""
    chart: str = ""
    """Name and version of the Helm chart on a cluster."""


def submitted_stage(job: StageJob, release: str, *, image: str = "", chart: str = "") -> StageRecord:
    """Return the record of a stage that runs ``job`` in the Helm release ``release`` on a cluster."""
    return StageRecord(
        name=job.stage,
        kind=str(job.kind),
        key=job.key,
        state=State.RUNNING,
        inputs=job.inputs,
        reward=job.reward.model_dump(mode="json") if job.reward else {},
        config=job.config,
        release=release,
        image=image,
        chart=chart,
    )


class Origin(TypedDict):
    """Origin of a run: the command, git revision, package versions and machine of its last invocation."""

    command: str
    git_revision: str
    versions: dict[str, str]
    machine: str


class RunRecord(_Record):
    """Record of a run, which ``editr1 runs show`` and the report display. Times are in seconds since the epoch."""

    name: str
    seed: int
    state: State = State.PENDING
    command: str = ""
    git_revision: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    created: float
    ended: float | None = None
    stated: dict[str, Any] = Field(default_factory=dict)
    """Settings that affect the run's outputs, by dotted name; empty in records of earlier versions.

    See :func:`editr1.runs.name_in_use.stated_settings`.
    """
    stages: dict[str, StageRecord] = Field(default_factory=dict)


class UnreadableRecord(ConfigError):
    """The record of a run is damaged, or another version of editr1 wrote it."""

    exit_code = ExitCode.INPUT


class RunRecordOfOtherVersion(UnreadableRecord):
    """The record of a run matches its checksum, but has fields or values that this version of editr1 does not know."""


def record_key(run: str) -> str:
    """Return the store key of the record of a run. Raises ConfigError if no run can have this name."""
    if not _NAME.fullmatch(run):
        raise ConfigError(f"{run!r} cannot be the name of a run: names have only letters, digits and hyphens")
    return f"runs/{run}/record.json"


def stage_prefix(run: str, stage: str, key: str) -> str:
    """Return the common prefix of the store keys of a stage's files.

    ``key`` is the digest from ``stage_key``. Artifacts are not stored under this prefix.
    """
    return f"runs/{run}/stages/{stage}/{key}/"


def result_key(run: str, stage: str, key: str) -> str:
    """Return the store key of a stage's result."""
    return stage_prefix(run, stage, key) + "result.json"


def progress_key(run: str, stage: str, key: str) -> str:
    """Return the store key of a stage's progress lines up to its last checkpoint. The report draws curves from these lines."""
    return stage_prefix(run, stage, key) + "progress.jsonl"


def save_record(store: ArtifactStore, record: RunRecord) -> None:
    """Write the record to the store."""
    store.put_record(record_key(record.name), dump_stored(record))


def load_record(
    store: ArtifactStore, run: str, *, ignore_unreadable: bool = False, ignore_unknown: bool = False
) -> RunRecord | None:
    """Return the record of ``run``; None if there is none.

    For ``ignore_unknown``, see :func:`editr1.runs.stored.parse_stored`. Such a record must not be saved.

    Raises:
        UnreadableRecord: this version of editr1 cannot read the record. With ``ignore_unreadable``, None is returned instead.
    """

    def read() -> RunRecord | None:
        data = store.get_record(record_key(run))
        where = f"{store.url}: records/{record_key(run)}"
        return None if data is None else parse_record(data, where, run, ignore_unknown=ignore_unknown)

    try:
        return read_again(read, UnreadableRecord)
    except UnreadableRecord:
        if ignore_unreadable:
            return None
        raise


def parse_record(data: bytes, where: str, run: str, *, ignore_unknown: bool = False) -> RunRecord:
    """Parse the stored record of ``run``.

    Raises UnreadableRecord if it is damaged, or belongs to a different run or version (RunRecordOfOtherVersion).
    """
    kind = UnreadableRecord
    try:
        text = json.dumps(load_checked(data))
        record = RunRecord.model_validate_json(text, extra="ignore" if ignore_unknown else None)
        if record.name != run:
            raise ValueError(f"it is the record of the run {record.name!r}")
        return record
    except ValidationError as error:
        writer = "not a run record of this version"
        if has_checksum(data):
            kind, writer = RunRecordOfOtherVersion, "written by another version"
        faults = explain(RunRecord, error, where=f"{where}: {writer} of editr1")
    except ValueError as error:
        faults = [f"{where}: the record is damaged ({len(data)} bytes): {error}"]
    remedy = (
        f"{where}: restore it from a backup, or recreate it with: editr1 run FILE --replace (finished stages are "
        "reused)"
    )
    raise kind("\n".join([*faults, remedy]))


def save_result(store: ArtifactStore, run: str, stage: str, result: StageResult) -> None:
    """Write the result of a stage, which marks the stage as done."""
    store.put_record(result_key(run, stage, result.key), dump_stored(result))


def load_result(
    store: ArtifactStore, run: str, stage: str, key: str, *, ignore_unknown: bool = False
) -> StageResult | None:
    """Return the result that the stage with this key has committed; None if it is not done.

    For ``ignore_unknown``, see :func:`editr1.runs.stored.parse_stored`.

    Raises:
        DamagedRecord: the result is damaged, or is the result of a different stage.
    """
    name = result_key(run, stage, key)
    remedy = f"move it aside with editr1 runs repair {run} --yes, and run the stage again"
    result = read_stored(store, StageResult, name, remedy=remedy, ignore_unknown=ignore_unknown)
    if result is not None and result.key != key:
        where = f"{store.url}: records/{name}"
        raise DamagedRecord(f"{where}: it is the result of the stage with the key {result.key}, not {key}; {remedy}")
    return result


def load_complete_result(store: ArtifactStore, run: str, stage: str, key: str) -> StageResult | None:
    """Return the result of a stage whose outputs are all in the store; None if it is not done or an output is missing.

    The artifacts of a finished run may have been removed from the store. The stage then has to run again. A damaged
    result is ignored with a warning. A partial result is returned until an invocation starts the stage again
    (:func:`editr1.runs.partial.result_to_reuse`).
    """
    try:
        result = load_result(store, run, stage, key)
    except DamagedRecord as error:
        warn_once(f"stage {stage} of run {run} runs again, because its result cannot be used: {error}")
        return None
    if result is None or result.asked_again:
        return None
    for name, digest in result.outputs.items():
        if reason := store.missing(digest):
            warn_once(f"stage {stage} of run {run} runs again, because its output {name} is missing: {reason}")
            return None
        if (made_by := store.manifest(digest).config_digest) not in ("", key):
            warn_once(
                f"stage {stage} of run {run} runs again: {store.url}: records/{result_key(run, stage, key)}: its output {name}"
                f" was made by the stage with the key {made_by}, not {key}"
            )
            return None
    return result


def add_unsubmitted_stage(store: ArtifactStore, run: str, seed: int, stage: StageRecord, command: str) -> None:
    """Add a stage whose chart was installed by hand, not by ``editr1 submit``, to the record of its run.

    The record is created if there is none. A stage that is already recorded with the same key is not changed. A record of
    another version is not changed either, because its unknown fields would be lost.
    """
    try:
        record = load_record(store, run)
    except RunRecordOfOtherVersion as error:
        warn_once(f"stage {stage.name} is not added to the record of run {run}: {str(error).splitlines()[0]}")
        return
    if record is None:
        record = RunRecord(name=run, seed=seed, state=State.RUNNING, command=command, created=time.time())
    if stage.name in record.stages and record.stages[stage.name].key == stage.key:
        return
    record.state = State.RUNNING
    record.stages[stage.name] = stage
    save_record(store, record)


def newest_result(store: ArtifactStore, run: str, stage: str) -> StageResult | None:
    """Return the result of a stage, or None if there is none.

    If the run has a record of the stage, this is the result for the key in the record. Otherwise, it is the stage's only result.
    Fields that this version does not know are ignored, so that an image can read the outputs of a run of a newer version.

    Raises:
        ConfigError: there is no record and more than one result.
    """
    record = load_record(store, run, ignore_unknown=True)
    if record is not None and stage in record.stages:
        return load_result(store, run, stage, record.stages[stage].key, ignore_unknown=True)
    prefix = f"runs/{run}/stages/{stage}/"
    found = [key for key in store.list_records(prefix) if key.endswith("/result.json")]
    if len(found) > 1:
        raise ConfigError(
            f"{store.url}: stage {stage} of run {run} has {len(found)} results, so run:{run}/{stage} is ambiguous; refer to the output "
            "of one of them as sha256:<digest> (see editr1 artifacts ls)"
        )
    key = found[0].removeprefix(prefix).split("/")[0] if found else None
    return None if key is None else load_result(store, run, stage, key, ignore_unknown=True)


def refreshed(record: RunRecord, store: ArtifactStore) -> RunRecord:
    """Update ``record`` with the results that stages on a cluster have committed since the record was saved, and return it."""
    for stage in record.stages.values():
        if not stage.release or stage.state is State.DONE:
            continue
        try:
            result = load_result(store, record.name, stage.name, stage.key)
        except DamagedRecord as error:
            warn_once(f"the result of stage {stage.name} of run {record.name} is ignored: {error}")
            continue
        if result is not None and not result.asked_again:
            stage.state, stage.outputs, stage.metrics = State.DONE, result.outputs, result.metrics
            stage.missing = result.missing
    if record.state is State.RUNNING and all(stage.state is State.DONE for stage in record.stages.values()):
        record.state = State.DONE
    return record
