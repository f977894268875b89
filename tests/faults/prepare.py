"""Make the states from which faults start: a finished run, and an interrupted one, of each workload."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterable
from os import kill
from pathlib import Path

from tests.faults.preload import COMMAND, Template
from tests.faults.processes import Processes
from tests.faults.workloads import RUN, WORKLOADS, Reference, Workload, link_store, pointers

_LIMIT_SECONDS = 600.0


class NotPrepared(RuntimeError):
    """An undisturbed run failed, so that nothing can be compared with it."""


def prepare(template: Template, base: Path, names: Iterable[str], reward_url: str) -> None:
    """Run each workload once without faults, and once until it is stopped after some checkpoints, below ``base``."""
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
        if workload.partial:
            _run(template, base, workload, "partial")
        store = folder / "finished" / RUN / "store"
        record = json.loads((store / "records" / "runs" / RUN / "record.json").read_text())
        stage = record["stages"][workload.stage]
        Reference(stage["key"], stage["outputs"], stage["metrics"], seconds).save(base, name)


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
