"""Make the states from which faults start: a finished run, and an interrupted one, of each workload."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Collection, Iterable
from os import kill
from pathlib import Path

from editr1.errors import ExitCode
from tests.faults.preload import COMMAND, Template
from tests.faults.processes import Processes
from tests.faults.workloads import RUN, WORKLOADS, Reference, Workload, link_store, pointers, stage_results

_LIMIT_SECONDS = 600.0
_TRIES = 5


class NotPrepared(RuntimeError):
    """An undisturbed run failed, so that nothing can be compared with it."""


def prepare(
    template: Template, base: Path, names: Iterable[str], interrupted: Collection[str], reward_url: str
) -> None:
    """Run each workload once without faults below ``base``, and those in ``interrupted`` once until they are stopped."""
    for name in names:
        workload, folder = WORKLOADS[name], base / name
        if (folder / "reference.json").is_file():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "url.txt").write_text(reward_url)
        (folder / "run.json").write_text(json.dumps(workload.run_file(reward_url)))
        began = time.monotonic()
        code = _run(template, base, workload, "finished")
        if code != 0:
            raise NotPrepared(
                f"workload {name}: ended with {code}\n{(folder / 'finished' / 'output.txt').read_text()[-2000:]}"
            )
        seconds = time.monotonic() - began
        if name in interrupted and not any(_stopped(template, base, workload) for _ in range(_TRIES)):
            raise NotPrepared(f"workload {name}: ended before it could be stopped after {workload.partial} checkpoints")
        store = folder / "finished" / RUN / "store"
        record = json.loads((store / "records" / "runs" / RUN / "record.json").read_text())
        stage = record["stages"][workload.stage]
        Reference(stage["key"], stage["outputs"], stage["metrics"], seconds).save(base, name)


def _stopped(template: Template, base: Path, workload: Workload) -> bool:
    """Run a workload until it is stopped after some checkpoints. Return False if it ended before."""
    shutil.rmtree(base / workload.name / "partial", ignore_errors=True)
    code = _run(template, base, workload, "partial")
    store = base / workload.name / "partial" / RUN / "store"
    return code == ExitCode.TERMINATED and not stage_results(store, workload.stage)


def _run(template: Template, base: Path, workload: Workload, state: str) -> int | None:
    """Run a workload in ``base/<name>/<state>``. The state ``partial`` is stopped with SIGTERM after some checkpoints."""
    folder = base / workload.name / state
    folder.mkdir(parents=True, exist_ok=True)
    if workload.after is not None:
        link_store(base / workload.after / "finished" / RUN / "store", folder / RUN / "store")
    processes = Processes(template, folder / "processes")
    arguments = ["run", str(base / workload.name / "run.json"), "--runs-dir", str(folder)]
    pid = processes.start(COMMAND, arguments, {}, folder / "output.txt")
    deadline, stopped = time.monotonic() + _LIMIT_SECONDS, False
    while (code := processes.code(pid)) is None and time.monotonic() < deadline:
        enough = len(pointers(folder / RUN / "store", workload.stage)) >= workload.partial
        if state == "partial" and enough and not stopped:
            kill(pid, signal.SIGTERM)
            stopped = True
        time.sleep(0.005)
    processes.end()
    return code
