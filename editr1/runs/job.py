"""The job file: all input of a stage process, which reads it from the path in ``EDITR1_CONFIG``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from editr1.config.base import Settings
from editr1.config.loader import ConfigError, validate
from editr1.config.store import StoreConfig
from editr1.runs.kinds import Kind

CONFIG_VARIABLE = "EDITR1_CONFIG"
"""Environment variable with the path of the job file."""
PARENT_VARIABLE = "EDITR1_PARENT_PID"
"""Environment variable with the process id of the launcher; the stage stops when that process exits."""


class RuntimeSettings(Settings):
    """Settings for reporting and restarts of a stage process. They do not affect outputs or the stage's key."""

    release: str = ""
    """Helm release of the stage on a cluster; empty for a local process."""
    publish_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Seconds between two writes of progress, logs and spans to the store (in a pod)."""
    retries: Annotated[int | None, Field(ge=0)] = None
    """Number of restarts of the container after failures; null leaves retries to the creator of the job."""
    span_file: Path | None = None
    """JSON-lines file for spans; null writes ``spans.jsonl`` into ``workdir``."""
    log_format: Literal["text", "json"] = "text"
    """Format of log lines."""


class StageJob(Settings):
    """A stage with all references resolved. A pod and a local process read the same file."""

    run: str
    """Name of the run."""
    stage: str
    """Name of the stage in the run."""
    kind: Kind
    """Kind of the stage."""
    key: str = ""
    """Digest of kind, config, seed, inputs and reward: equal keys mean equal outputs. Empty until it is resolved."""
    seed: int
    """The run's seed."""
    store: StoreConfig
    """Artifact store for inputs, outputs and records."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Input name to resolved reference: ``sha256:<digest>`` or ``hub:<name>@<revision>``."""
    reward_urls: list[str] = Field(default_factory=list)
    """Addresses of the reward service, for stages that need one."""
    reward_digest: str | None = None
    """Digest of the model that the reward service must serve; null accepts any."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the kind."""
    workdir: Path
    """Scratch folder of the attempt for progress, logs and downloads."""
    git_revision: str = ""
    """Git revision of the code that submitted the run."""
    runtime: RuntimeSettings = RuntimeSettings()
    """Reporting and restarts."""

    @property
    def progress_file(self) -> Path:
        """Progress file that all attempts with this key append to."""
        return self.workdir / f"progress-{self.key[:12]}.jsonl"


def read_job() -> StageJob:
    """Read the job of this process. Raises ConfigError if ``EDITR1_CONFIG`` is not the path of a valid job file."""
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise ConfigError(f"{CONFIG_VARIABLE} is not set: set it to the path of the stage's job file")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return validate(StageJob, json.loads(data), where=path)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
