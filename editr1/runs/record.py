"""The run record: state, attempts, inputs and outputs by digest, written to the store after every change."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError, explain


class State(StrEnum):
    """Where a run or a stage stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Attempt(_Record):
    """One start of a stage process; times in seconds since the epoch."""

    started: float
    ended: float | None = None
    exit_code: int | None = None
    reason: str = ""


class StageResult(_Record):
    """What a stage process commits when it is done; its record key holds the stage key, so it is found again."""

    key: str
    outputs: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)


class StageRecord(_Record):
    """A stage of a run."""

    name: str
    kind: str
    key: str = ""
    state: State = State.PENDING
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    attempts: list[Attempt] = Field(default_factory=list)
    reason: str = ""
    release: str = ""
    """Helm release on a cluster; empty for a stage of this machine."""
    image: str = ""
    """Image of the stage's container on a cluster."""
    chart: str = ""
    """Chart and version on a cluster."""


class Origin(TypedDict):
    """The fields of a run's record that say who runs its stages; they are those of the newest start."""

    command: str
    git_revision: str
    versions: dict[str, str]
    machine: str


class RunRecord(_Record):
    """A run, as ``editr1 runs show`` prints it and the report draws it."""

    name: str
    seed: int
    state: State = State.PENDING
    command: str = ""
    git_revision: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    created: float
    ended: float | None = None
    stages: dict[str, StageRecord] = Field(default_factory=dict)


def record_key(run: str) -> str:
    """Where the record of ``run`` lies in the store."""
    return f"runs/{run}/record.json"


def stage_prefix(run: str, stage: str, key: str) -> str:
    """Below what everything of a stage with that key lies in the store, artifacts apart."""
    return f"runs/{run}/stages/{stage}/{key}/"


def result_key(run: str, stage: str, key: str) -> str:
    """Where the result of a stage with that key lies in the store."""
    return stage_prefix(run, stage, key) + "result.json"


def progress_key(run: str, stage: str, key: str) -> str:
    """Where a stage's progress lines lie in the store, as of its last checkpoint or its end; the report's curves."""
    return stage_prefix(run, stage, key) + "progress.jsonl"


def checkpoint_prefix(run: str, stage: str, key: str) -> str:
    """Where the checkpoint pointers of a stage with that key lie in the store."""
    return stage_prefix(run, stage, key) + "checkpoints/"


def newest_checkpoint(store: ArtifactStore, run: str, stage: str, key: str) -> str | None:
    """Record of the newest checkpoint's pointer, None before the first."""
    return max(store.list_records(checkpoint_prefix(run, stage, key)), default=None)


def save_record(store: ArtifactStore, record: RunRecord) -> None:
    """Write the record."""
    store.put_record(record_key(record.name), record.model_dump_json(indent=2).encode())


def load_record(store: ArtifactStore, run: str) -> RunRecord | None:
    """The record of ``run``, or None when it has none. Raises ConfigError for one that this version cannot read."""
    data = store.get_record(record_key(run))
    return None if data is None else parse_record(data, f"{store.url}: {record_key(run)}")


def parse_record(data: bytes, where: str) -> RunRecord:
    """A record as stored. Raises ConfigError for one that this version cannot read."""
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(explain(RunRecord, error, where=f"{where}: not a record of this version"))
        ) from None


def load_result(store: ArtifactStore, run: str, stage: str, key: str) -> StageResult | None:
    """The committed result of a stage, or None while it is not done."""
    data = store.get_record(result_key(run, stage, key))
    return None if data is None else StageResult.model_validate_json(data)


def note_stage(store: ArtifactStore, run: str, seed: int, stage: StageRecord, command: str) -> None:
    """Put a stage that nobody submitted into the run's record, making one where there is none; a stage that is there stays."""
    record = load_record(store, run)
    if record is None:
        record = RunRecord(name=run, seed=seed, state=State.RUNNING, command=command, created=time.time())
    if stage.name in record.stages and record.stages[stage.name].key == stage.key:
        return
    record.state = State.RUNNING
    record.stages[stage.name] = stage
    save_record(store, record)


def newest_result(store: ArtifactStore, run: str, stage: str) -> StageResult | None:
    """The result of the stage with the key that the run's record names, else the only one there is.

    Raises:
        ConfigError: there are several, and no record says which one counts.
    """
    record = load_record(store, run)
    if record is not None and stage in record.stages:
        return load_result(store, run, stage, record.stages[stage].key)
    prefix = f"runs/{run}/stages/{stage}/"
    found = [key for key in store.list_records(prefix) if key.endswith("/result.json")]
    if len(found) > 1:
        raise ConfigError(f"{store.url}: stage {stage} of run {run} has {len(found)} results; name one by sha256:")
    return load_result(store, run, stage, found[0].removeprefix(prefix).split("/")[0]) if found else None


def refreshed(record: RunRecord, store: ArtifactStore) -> RunRecord:
    """The record with what its stages on a cluster have committed since it was written; nobody there rewrites it."""
    for stage in record.stages.values():
        if not stage.release or stage.state is State.DONE:
            continue
        result = load_result(store, record.name, stage.name, stage.key)
        if result is not None:
            stage.state, stage.outputs, stage.metrics = State.DONE, result.outputs, result.metrics
    if record.state is State.RUNNING and all(stage.state is State.DONE for stage in record.stages.values()):
        record.state = State.DONE
    return record
