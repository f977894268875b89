"""Data classes for the status of an EditRun.

``kubectl get`` and ``kubectl describe`` show this status. The operator keeps no other state: after a restart, it
resumes every run from its status.
"""

from __future__ import annotations

import json
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
    """Machine-readable reason for the state of a run or stage. The ``message`` of the status explains it in a sentence."""

    INPUTS_MISSING = "InputsMissing"
    SERVICE_STARTING = "ServiceStarting"
    PODS_STARTING = "PodsStarting"
    QUEUED = "Queued"
    HELD = "Held"
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
    """Time at which the operator decided to start the attempt."""
    ended: float | None = None
    """Time at which the attempt ended."""
    exit_code: int | None = None
    """Exit code of the stage's process."""
    reason: str = ""
    """Reason why the attempt ended."""


class StageStatus(_Status):
    """Status of a stage. Times are seconds since the epoch."""

    name: str
    """Name of the stage in the run."""
    kind: str = ""
    """Kind of the stage."""
    state: RunState = RunState.WAITING
    """State of the stage."""
    reason: Reason | None = None
    """Machine-readable reason for the state."""
    message: str = ""
    """Explanation of the state in a sentence."""
    key: str = ""
    """Digest of everything that determines the outputs of the stage. It does not change during a run."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Digests of the inputs by name. They do not change during a run."""
    reward: str = ""
    """Identity of the reward model as JSON, from which the key was computed. Empty if the stage uses none."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """Digests of the outputs by name."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Metrics in the result of the stage, by name."""
    release: str = ""
    """Name of the stage's Kubernetes objects, such as its job."""
    image_digest: str = ""
    """Digest of the container image of all attempts. Empty if the settings contain a digest, or if the registry returned none."""
    attempts: list[AttemptStatus] = Field(default_factory=list)
    """Attempts of the stage, oldest first."""
    failures: int = 0
    """Number of failed attempts plus number of lost nodes."""
    not_before: float | None = None
    """Earliest start time of the next attempt. Set only while the stage waits to be retried."""
    pending_since: float | None = None
    """Time at which the newest attempt began to wait for its pods to run. Not set while the attempt is running."""
    suspended_since: float | None = None
    """Time at which the stage was suspended or began to wait in a queue. Not set while it is neither suspended nor queued."""
    suspended_seconds: float = 0.0
    """Total duration of earlier suspensions in seconds. This time does not count towards the deadline."""
    ended: float | None = None
    """Time at which the stage ended."""
    job_uid: str = ""
    """UID of the newest attempt's job. Empty until the operator has observed the job."""
    removed_uid: str = ""
    """UID of the last job that was deleted to suspend the stage. The operator ignores this job until the job no longer exists."""
    pods: dict[str, str] = Field(default_factory=dict)
    """UIDs of the newest attempt's pods by pod name. If the UID of a pod changes, the node of the old pod was lost."""
    progress: str = ""
    """Phase and progress of the stage, such as ``train 3/10``."""

    @property
    def over(self) -> bool:
        """Return True if the stage is done or has failed."""
        return self.state in (RunState.DONE, RunState.FAILED)


RECORD_STATES = {
    RunState.WAITING: State.PENDING,
    RunState.STARTING: State.RUNNING,
    RunState.RUNNING: State.RUNNING,
    RunState.SUSPENDED: State.INTERRUPTED,
    RunState.DONE: State.DONE,
    RunState.FAILED: State.FAILED,
}
"""Mapping from the states in the status of an EditRun to the states in the record of a run."""


def stage_record(stage: StageStatus) -> StageRecord:
    """Convert the status of a stage to the entry of the stage in the record of a run.

    The status does not contain the fields ``config``, ``image`` and ``chart``, so these remain empty.
    """
    return StageRecord(
        name=stage.name,
        kind=stage.kind,
        key=stage.key,
        state=RECORD_STATES[stage.state],
        inputs=stage.inputs,
        reward=json.loads(stage.reward) if stage.reward else {},
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
    """A condition in the status of a run, with the standard fields of a Kubernetes condition."""

    type: str
    """Name of the condition: Ready, Progressing or Failed."""
    status: str
    """Whether the condition holds: True or False."""
    reason: str
    """Machine-readable reason for the state of the run."""
    message: str = ""
    """Explanation of the state in a sentence."""
    last_transition_time: str
    """Time of the last change of the condition's status (RFC 3339)."""
    observed_generation: int = 0
    """Generation of the specification to which the condition applies."""


class RunStatus(_Status):
    """Status of a run. Times are seconds since the epoch."""

    observed_generation: int = 0
    """Generation of the specification that the operator last processed."""
    state: RunState = RunState.WAITING
    """State of the run."""
    stage: str = ""
    """Names of the active stages, separated by commas."""
    progress: str = ""
    """Progress of the active stages."""
    reason: Reason | None = None
    """Machine-readable reason for the state."""
    message: str = ""
    """Explanation of the state in a sentence."""
    started: float | None = None
    """Time at which the run started."""
    ended: float | None = None
    """Time at which the run ended."""
    trace: str = ""
    """W3C traceparent of the OpenTelemetry span of the run."""
    conditions: list[RunCondition] = Field(default_factory=list)
    """The conditions Ready, Progressing and Failed."""
    stages: list[StageStatus] = Field(default_factory=list)
    """Status of each stage, in the order of the specification."""

    def stage_of(self, name: str) -> StageStatus | None:
        """Return the status of a stage, or ``None`` if there is none yet."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """Return the status in the JSON format of the API server, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
