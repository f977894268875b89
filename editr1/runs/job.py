"""What one stage process is told: the resolved job, read from the file that ``EDITR1_CONFIG`` names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field

from editr1.config.base import Settings
from editr1.config.loader import ConfigError, validate
from editr1.config.store import StoreConfig
from editr1.runs.kinds import Kind

CONFIG_VARIABLE = "EDITR1_CONFIG"
PARENT_VARIABLE = "EDITR1_PARENT_PID"
"""Set by a launcher whose stages must not outlive it: its process id."""


class StageJob(Settings):
    """A stage with everything resolved; a pod and a local process read the same file."""

    run: str
    """Name of the run."""
    stage: str
    """Name of the stage in the run."""
    kind: Kind
    """Which stage this is."""
    key: str = ""
    """Digest of kind, config, seed and input digests: the same key means the same outputs. Empty: not settled yet."""
    seed: int
    """The run's seed."""
    store: StoreConfig
    """Where artifacts and records live."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Input name to frozen reference: ``sha256:<digest>`` or ``hub:<name>@<revision>``."""
    reward_urls: list[str] = Field(default_factory=list)
    """Addresses of the reward service, for stages that score."""
    reward_digest: str | None = None
    """Digest of the model that the reward service must answer with."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the kind."""
    workdir: Path
    """Scratch folder of the attempt; progress, logs and downloads go there."""
    git_revision: str = ""
    """Revision of the code that submitted the run."""

    @property
    def progress_file(self) -> Path:
        """Progress of every attempt with this key; an attempt that continues appends."""
        return self.workdir / f"progress-{self.key[:12]}.jsonl"


def read_job() -> StageJob:
    """The job of this process. Raises ConfigError when ``EDITR1_CONFIG`` is unset or does not hold a job."""
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise ConfigError(f"{CONFIG_VARIABLE} is not set: it must name the stage's job file")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return validate(StageJob, json.loads(data), where=path)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
