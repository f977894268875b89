"""The status of an EditRun: what ``kubectl get`` and ``describe`` show, and all that the operator remembers."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from editr1.runs.record import Attempt, StageRecord, State


class RunState(StrEnum):
    """Where a run, or a stage of it, stands."""

    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DONE = "Done"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why it stands there, in one word; the message says it in a sentence."""

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
    STANDS = "AlreadyStands"
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
    """One start of a stage's job. Times in seconds since the epoch."""

    started: float
    """When it was asked for."""
    ended: float | None = None
    """When it was over."""
    exit_code: int | None = None
    """What the stage's process ended with."""
    reason: str = ""
    """Why it ended, in words."""


class StageStatus(_Status):
    """A stage. Times in seconds since the epoch."""

    name: str
    """Name in the run."""
    kind: str = ""
    """Kind of stage."""
    state: RunState = RunState.WAITING
    """Where it stands."""
    reason: Reason | None = None
    """Why, in one word."""
    message: str = ""
    """Why, in a sentence."""
    key: str = ""
    """Digest of all that decides its outputs; set once."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Inputs by digest; set once."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """Outputs by digest."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Figures that the stage committed."""
    release: str = ""
    """Name of its objects."""
    image_digest: str = ""
    """Exact image of every attempt, set once; empty where its registry does not say, or the settings give one."""
    attempts: list[AttemptStatus] = Field(default_factory=list)
    """Every start of its job."""
    failures: int = 0
    """Attempts that ended badly, and nodes lost."""
    not_before: float | None = None
    """Earliest start of the next attempt; set while one is due."""
    pending_since: float | None = None
    """Since when the newest attempt waits for nodes and images; unset while it runs."""
    held_since: float | None = None
    """Since when it is suspended, or held by a queue."""
    held_s: float = 0.0
    """Seconds for which it was held before; they do not count towards the deadline."""
    ended: float | None = None
    """End of the stage."""
    job_uid: str = ""
    """Identity of the newest attempt's job, once it was seen."""
    removed_uid: str = ""
    """Identity of the last job that was to be removed for suspending; it is no attempt any more, however long it stays."""
    pods: dict[str, str] = Field(default_factory=dict)
    """Pods of the newest attempt, name to identity; a new identity under an old name is a node lost."""
    progress: str = ""
    """How far it is."""

    @property
    def over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in (RunState.DONE, RunState.FAILED)


RECORD_STATES = {
    RunState.WAITING: State.PENDING,
    RunState.STARTING: State.RUNNING,
    RunState.RUNNING: State.RUNNING,
    RunState.SUSPENDED: State.INTERRUPTED,
    RunState.DONE: State.DONE,
    RunState.FAILED: State.FAILED,
}
"""What the run's record calls each state."""


def stage_record(stage: StageStatus) -> StageRecord:
    """The stage as the run's record has it; config, image and chart are not in the status."""
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
    """A condition, as Kubernetes has them."""

    type: str
    """Ready, Progressing or Failed."""
    status: str
    """True or False."""
    reason: str
    """Why, in one word."""
    message: str = ""
    """Why, in a sentence."""
    last_transition_time: str
    """When the status last changed (RFC 3339)."""
    observed_generation: int = 0
    """Generation of the spec that it speaks of."""


class RunStatus(_Status):
    """The status of a run."""

    observed_generation: int = 0
    """Generation of the spec that the operator last acted on."""
    state: RunState = RunState.WAITING
    """Where the run stands."""
    stage: str = ""
    """What runs now."""
    progress: str = ""
    """How far that is."""
    reason: Reason | None = None
    """Why the run stands there."""
    message: str = ""
    """Why, in a sentence."""
    started: float | None = None
    """Start of the run (seconds since the epoch)."""
    ended: float | None = None
    """End of the run."""
    trace: str = ""
    """W3C traceparent of the run's span."""
    conditions: list[RunCondition] = Field(default_factory=list)
    """Ready, Progressing, Failed."""
    stages: list[StageStatus] = Field(default_factory=list)
    """One entry a stage, in the file's order."""

    def stage_of(self, name: str) -> StageStatus | None:
        """The entry of a stage."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """As the API takes it, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
