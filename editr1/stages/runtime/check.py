"""Program that ``helm test`` runs to check that the job file is valid, the store works and the reward service is ready.

    python -m editr1.stages.runtime.check [--ready http://rrm:8000]

The exit code is 0, or the exit code of the first check that fails.
"""

from __future__ import annotations

import argparse
import sys

from editr1.artifacts import open_store
from editr1.artifacts.probe import probe
from editr1.errors import ExitCode
from editr1.runs.job import read_job
from editr1.runs.resolve import full_config
from editr1.stages.runtime.entry import exit_code
from editr1.telemetry.log import configure_logging
from editr1.terminal.text import echo


def main(arguments: list[str]) -> int:
    """Run the checks, print one line per check, and return 0 or the exit code of the first check that fails."""
    parser = argparse.ArgumentParser(prog="python -m editr1.stages.runtime.check", description=__doc__)
    parser.add_argument("--ready", help="address of a reward service that must be ready")
    given = parser.parse_args(arguments)
    configure_logging()
    try:
        job = read_job()
        configure_logging(job.runtime.log_format)
        full_config(job.kind, job.config, job.seed)
        echo(f"job: stage {job.stage} of run {job.run} is valid")
        store = open_store(job.store)
        for step in probe(store):
            echo(f"store: {step.name}: {'ok' if step.ok else step.detail}")
            if not step.ok:
                return ExitCode.TRANSIENT
        for name, reference in job.inputs.items():
            if reference.startswith("sha256:"):
                echo(f"input {name}: number of files: {len(store.manifest(reference).files)}")
        if given.ready:
            from editr1.serving.readiness import wait_ready

            wait_ready([given.ready], 60)
            echo(f"reward: ready at {given.ready}")
    except Exception as error:
        return exit_code(error)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
