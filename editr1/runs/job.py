"""The job file, which contains everything that a stage process needs to run.

The environment variable ``EDITR1_CONFIG`` contains its path.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from editr1.checksums import ChecksumMismatch, has_checksum, load_checked
from editr1.config.base import Settings
from editr1.config.loader import ConfigError, nearest, validate
from editr1.config.names import Name
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.parallel.heartbeat import FOLDER_VARIABLE, TIMEOUT_SECONDS
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.references import Scheme, parse_reference
from editr1.serving.identity import RewardIdentity

CONFIG_VARIABLE = "EDITR1_CONFIG"
"""Environment variable with the path of the job file."""
POD_VARIABLE = "EDITR1_POD"
"""Environment variable with the name of the pod; not set outside a cluster."""
PARENT_VARIABLE = "EDITR1_PARENT_PID"
"""Environment variable with the process id of the launcher. A local stage stops when that process exits."""


class ChangedJobFile(ConfigError):
    """A job file was changed after editr1 had written it. The next attempt writes it again."""

    exit_code = ExitCode.TRANSIENT


class RuntimeSettings(Settings):
    """Settings for reporting and restarts of a stage process. They do not affect the stage's outputs or key."""

    release: str = ""
    """Name of the stage's Helm release on a cluster; empty if the stage runs as a local process."""
    publish_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Interval in seconds at which a pod writes progress, logs and spans to the store."""
    heartbeat_timeout_seconds: Annotated[float, Field(ge=10)] = TIMEOUT_SECONDS
    """Time in seconds after which a process of the stage that writes no heartbeat is killed."""
    retries: Annotated[int | None, Field(ge=0)] = None
    """Maximum number of restarts of a container after failures; null if the pod has no limit."""
    span_file: Path | None = None
    """JSON-lines file to which spans are appended; null uses ``spans.jsonl`` in ``workdir``."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: plain text or JSON lines."""


class StageJob(Settings):
    """Content of a job file: a stage with its inputs, settings and store. Pods and local processes read the same format."""

    run: Name
    """Name of the run."""
    stage: Name
    """Name of the stage in the run."""
    kind: Kind
    """Kind of the stage."""
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of the kind, config, seed, inputs and reward model. It identifies the outputs of the stage. Empty until it is computed."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the run."""
    store: StoreConfig
    """Artifact store for inputs, outputs and records."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Inputs by name, each a resolved reference: ``sha256:<digest>`` or ``hub:<name>@<revision>``."""
    reward_urls: list[str] = Field(default_factory=list)
    """Addresses of the reward service, for stages that need one."""
    reward_digest: str | None = None
    """Digest of the model that the reward service must serve; null if the stage requests the digest from the service."""
    reward: RewardIdentity | None = None
    """Identity of the reward model, which is part of the key; null if it is unknown or if the stage needs no reward."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the stage."""
    workdir: Path
    """Scratch folder of the attempt for progress, logs and downloads. In a pod, this is the root of its volume, which other pods can
    share, until :func:`read_job` replaces it with a folder that belongs to the pod."""
    downloads: Path | None = None
    """Folder for inputs from the artifact store, which several pods can share; null: a folder in ``workdir``."""
    git_revision: str = ""
    """Git revision of the code that submitted the run."""
    runtime: RuntimeSettings = RuntimeSettings()
    """Settings for reporting and restarts."""

    @field_validator("reward", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        # Helm would write 1.0 as 1, and the key depends on the difference. Charts therefore contain the identity as text.
        return RewardIdentity.model_validate_json(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        known = [item.name for item in KINDS[self.kind].inputs]
        for name, text in self.inputs.items():
            if name not in known:
                raise ValueError(f"inputs.{name}: unknown input of a {self.kind} stage; {nearest(name, known)}")
            if parse_reference(text, f"inputs.{name}").scheme is Scheme.STAGE:
                raise ValueError(
                    f"inputs.{name}: {text!r} refers to a stage of a run file; in a job file, write run:<run>/<stage>/<output> or"
                    " sha256:<digest>"
                )
        return self

    @property
    def note_file(self) -> Path:
        """Path of a text file with the reason why the stage is waiting, such as a silent rank.

        It does not exist if there is no problem.
        """
        return self.workdir / "note.txt"

    @property
    def progress_file(self) -> Path:
        """Path of the progress file. All attempts with the same key append to it."""
        return self.workdir / f"progress-{self.key[:12]}.jsonl"


def make_workdir(job: StageJob) -> Path:
    """Create the working folder of a job if necessary, and return it. Raises ConfigError if its path cannot be a folder."""
    try:
        job.workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise  # A later attempt may succeed.
        raise ConfigError(
            f"workdir {str(job.workdir)!r}: the folder cannot be created: {error.strerror}; set workdir to a folder that can be written"
        ) from None
    return job.workdir


def _in_own_folder(job: StageJob) -> StageJob:
    """Return the job with a working folder that is named by run, stage and pod, if this process runs in a pod.

    Several pods can share a volume. They have the downloaded inputs in common, which their digests name, and nothing else. A
    pod that is created again has the same name and continues in its folder. The processes of a pod read a job that is already
    in this form.
    """
    pod = os.environ.get(POD_VARIABLE)
    if not pod or job.downloads is not None:
        return job
    own = job.workdir / "pods" / job.run / job.stage / pod
    return job.model_copy(update={"workdir": own, "downloads": job.workdir / "downloads"})


def read_job() -> StageJob:
    """Read the job of this process.

    In a pod, ``workdir`` of the returned job is a folder of this pod (:func:`_in_own_folder`).

    Raises:
        ChangedJobFile: the file was written by the launcher of this process, and is damaged or does not exist any more.
        ConfigError: ``EDITR1_CONFIG`` is not the path of a valid job file.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise ConfigError(f"{CONFIG_VARIABLE} is not set: set it to the path of the stage's job file")
    # The launcher writes the file again before the next attempt. A file that a user wrote would be the same again.
    launched = PARENT_VARIABLE in os.environ or FOLDER_VARIABLE in os.environ  # set by the local backend, and by a pod
    damaged = ChangedJobFile if launched else ConfigError
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise damaged(
            f"{path}: cannot be read: {error.strerror}; set {CONFIG_VARIABLE} to the path of a job file"
        ) from None
    try:
        content = load_checked(data)
    except ValueError as error:
        raise (ChangedJobFile if isinstance(error, ChecksumMismatch) else damaged)(
            f"{path}: the job file is damaged ({len(data)} bytes): {error}; start the stage again with the command "
            "that wrote the file (to edit the file by hand, remove its field 'checksum')"
        ) from None
    try:
        return _in_own_folder(validate(StageJob, content, where=path))
    except ConfigError as error:
        # Without a checksum, the name of the field 'checksum' was changed, or the text is not an object.
        if launched and not has_checksum(data):
            raise ChangedJobFile(f"{error}; {path}: the job file is damaged, because it has no checksum") from None
        raise
