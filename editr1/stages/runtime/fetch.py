"""Program that downloads one input of the stage to a folder, from which a sidecar container (vLLM) reads it.

python -m editr1.stages.runtime.fetch INPUT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from editr1.artifacts import OutageWait, open_store
from editr1.artifacts.weights import check_model_folder
from editr1.config.loader import ConfigError
from editr1.errors import ExitCode
from editr1.runs.job import read_job
from editr1.runs.resolve import resolve_job
from editr1.stages.runtime.entry import exit_code
from editr1.telemetry.log import configure_logging


def main(name: str, folder: str) -> int:
    """Download the input ``name`` to ``folder``, verify its digests and weight files, and return the exit code."""
    configure_logging()
    try:
        job = read_job()
        configure_logging(job.runtime.log_format)
        store = open_store(job.store, OutageWait(job.store.outage_seconds))
        reference = resolve_job(job, store).inputs.get(name)
        if reference is None or not reference.startswith("sha256:"):
            raise ConfigError(f"inputs.{name}: {reference!r} is not an artifact in the store; set it to sha256:DIGEST")
        check_model_folder(store.fetch(reference, Path(folder)))
    except Exception as error:
        return exit_code(error)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
