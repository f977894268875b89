"""The status of an EditRun: what ``kubectl get`` and ``kubectl describe`` show, and the only state that the operator keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from editr1.runs.record import Attempt, StageRecord, State


class RunState(StrEnum):
    """State of a run or of a stage."""

    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DONE = "Done"
    FAILED = "Failed"


class Reason(StrEnum):
    """Machine-readable reason for a state; the message next to it explains it in a sentence."""

    INPUTS_MISSING = "InputsMissing"
    SERVICE_STARTING = "ServiceStarting"
    PODS_STARTING = "PodsStarting"
    QUEUED = "Queued"
    NO_NODE = "NoNode"
    NO_IMAGE = "NoImage"
    NO_QUOTA = "NoQuota"
    PODS_REFUSED = "PodsRefused"
    CANNOT_START = "CannotStart"
    RUNNING = "Running"
    RETRYING = "Retrying"
    NODE_LOST = "NodeLost"
    SUSPENDED = "Suspended"
    DONE = "Done"
    UP_TO_DATE = "UpToDate"
    INVALID = "InvalidSpec"
    SETTINGS = "SettingsInvalid"
    STORE_UNREACHABLE = "StoreUnreachable"
    HUB_UNREACHABLE = "HubUnreachable"
    REFUSED = "ObjectsRefused"
    EXIT_PERMANENT = "PermanentExitCode"
    RETRIES_SPENT = "RetriesSpent"
    DEADLINE = "DeadlinePassed"
    PENDING_TOO_LONG = "PendingTooLong"
    NO_RESULT = "NoResult"
    STAGE_FAILED = "StageFailed"


class _Status(BaseModel):
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class AttemptStatus(_Status):
    """One attempt of a stage. Times are seconds since the epoch."""

    started: float
    """When the attempt was planned."""
    ended: float | None = None
    """When the attempt ended."""
    exit_code: int | None = None
    """Exit code of the stage's process."""
    reason: str = ""
    """Why the attempt ended."""


class StageStatus(_Status):
    """Status of a stage. Times are seconds since the epoch."""

    name: str
    """Name of the stage in the run."""
    kind: str = ""
    """Kind of the stage."""
    state: RunState = RunState.WAITING
    """State of the stage."""
    reason: Reason | None = None
    """Machine-readable reason."""
    message: str = ""
    """Explanation in a sentence."""
    key: str = ""
    """Digest of everything that determines the outputs; set once."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Digests of the inputs by name; set once."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """Digests of the outputs by name."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Metrics that the stage committed."""
    release: str = ""
    """Name of the stage's objects in the cluster."""
    image_digest: str = ""
    """Image digest of every attempt, set once; empty if the settings contain one or the registry returns none."""
    attempts: list[AttemptStatus] = Field(default_factory=list)
    """Attempts of the stage, oldest first."""
    failures: int = 0
    """Number of failed attempts and lost nodes."""
    not_before: float | None = None
    """Earliest start of the next attempt; set during the backoff."""
    pending_since: float | None = None
    """Since when the newest attempt waits for nodes and images; unset while it is running."""
    suspended_since: float | None = None
    """Since when the stage is suspended or waits in a queue."""
    suspended_seconds: float = 0.0
    """Seconds of earlier suspensions; they do not count towards the deadline."""
    ended: float | None = None
    """When the stage ended."""
    job_uid: str = ""
    """UID of the newest attempt's job once it was observed."""
    removed_uid: str = ""
    """UID of the last job that was deleted for a suspension; it is ignored while its deletion takes time."""
    pods: dict[str, str] = Field(default_factory=dict)
    """UIDs of the newest attempt's pods by name; a new UID under a known name means that a node was lost."""
    progress: str = ""
    """Progress of the stage."""

    @property
    def over(self) -> bool:
        """Whether the stage has reached its final state."""
        return self.state in (RunState.DONE, RunState.FAILED)


RECORD_STATES = {
    RunState.WAITING: State.PENDING,
    RunState.STARTING: State.RUNNING,
    RunState.RUNNING: State.RUNNING,
    RunState.SUSPENDED: State.INTERRUPTED,
    RunState.DONE: State.DONE,
    RunState.FAILED: State.FAILED,
}
"""State in the run's record for each state in the status."""


def stage_record(stage: StageStatus) -> StageRecord:
    """Convert the status of a stage to its entry in the run's record; config, image and chart are not in the status."""
    return StageRecord(
        name=stage.name,
        kind=stage.kind,
        key=stage.key,
        state=RECORD_STATES[stage.state],
        inputs=stage.inputs,
        outputs=stage.outputs,
        metrics=stage.metrics,
        attempts=[
            Attempt(started=item.started, ended=item.ended, exit_code=item.exit_code, reason=item.reason)
            for item in stage.attempts
        ],
        reason=stage.message,
        release=stage.release,
    )


class RunCondition(_Status):
    """A Kubernetes condition."""

    type: str
    """Ready, Progressing or Failed."""
    status: str
    """True or False."""
    reason: str
    """Machine-readable reason."""
    message: str = ""
    """Explanation in a sentence."""
    last_transition_time: str
    """When the status last changed (RFC 3339)."""
    observed_generation: int = 0
    """Generation of the specification that the condition is based on."""


class RunStatus(_Status):
    """Status of a run. Times are seconds since the epoch."""

    observed_generation: int = 0
    """Generation of the specification that the operator last reconciled."""
    state: RunState = RunState.WAITING
    """State of the run."""
    stage: str = ""
    """Names of the active stages."""
    progress: str = ""
    """Progress of the active stages."""
    reason: Reason | None = None
    """Machine-readable reason for the state."""
    message: str = ""
    """Explanation in a sentence."""
    started: float | None = None
    """When the run started."""
    ended: float | None = None
    """When the run ended."""
    trace: str = ""
    """W3C traceparent of the run's span."""
    conditions: list[RunCondition] = Field(default_factory=list)
    """Conditions Ready, Progressing and Failed."""
    stages: list[StageStatus] = Field(default_factory=list)
    """Status of each stage in the order of the specification."""

    def stage_of(self, name: str) -> StageStatus | None:
        """Return the status of a stage, or ``None`` if there is none yet."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """Return the status as the API server stores it, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
